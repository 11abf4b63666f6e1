//! `/v1/deployments`: creates, lists, changes and deletes deployments, and retries their provisioning.

mod body;
mod patch;
mod sandbox;
mod schema;
mod view;

use axum::Json;
use axum::extract::State;
use herm_app::deployments::{self, DeploymentDetails, FileRetention};
use herm_types::deployment::{DeploymentItem, DeploymentStatus};
use herm_types::error::ErrorBody;
use herm_types::paging::Page;
use herm_types::{DeploymentId, Error, SnapshotId, Timestamp};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::Value;

use crate::auth::Auth;
use crate::error::Failure;
use crate::idempotency::OptionalClaim;
use crate::input::{DeploymentPath, FieldErrors, JsonBody, Object, OptionalJsonBody, Query, no_fields};
use crate::state::ApiState;
pub(crate) use schema::{CreateDeployment, UpdateDeployment};
pub(crate) use view::DeploymentView;

/// Create a deployment: an agent dedicated to one customer.
#[utoipa::path(post, path = "/v1/deployments", operation_id = "create_deployment", tag = "deployments",
    request_body = CreateDeployment,
    responses((status = 201, body = DeploymentView), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 413, body = ErrorBody), (status = 415, body = ErrorBody), (status = 422, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
pub(crate) async fn create_deployment(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    query: Query,
    headers: HeaderMap,
    claim: OptionalClaim,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<DeploymentView>), Failure> {
    query.finish()?;
    let create = body::create(&body, state.app.settings())?;
    let app = state.app.clone();
    let view = move |described: &DeploymentDetails| DeploymentView::new(described.clone(), &state, &headers);
    let reply = claim.reply_with(StatusCode::CREATED, view.clone());
    let described = deployments::create(&app, &caller, create, reply).await?;
    Ok((StatusCode::CREATED, Json(view(&described))))
}

/// List deployments, newest first.
#[utoipa::path(get, path = "/v1/deployments", operation_id = "list_deployments", tag = "deployments",
    params(("customer_id" = Option<String>, Query), ("status" = Option<DeploymentStatus>, Query),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<DeploymentItem>), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(crate) async fn list_deployments(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    mut query: Query,
) -> Result<Json<Page<DeploymentItem>>, Failure> {
    let filter = deployments::ListFilter {
        customer_id: query.take_non_empty("customer_id"),
        status: query.choice("status", DeploymentStatus::parse, "`provisioning`, `ready`, `error`"),
    };
    let page = query.page::<DeploymentId>();
    query.finish()?;
    Ok(Json(deployments::list(&state.app, &caller, filter, page).await?))
}

/// Get a deployment.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}", operation_id = "get_deployment", tag = "deployments",
    params(("deployment_id" = DeploymentId, Path)),
    responses((status = 200, body = DeploymentView), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn get_deployment(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    headers: HeaderMap,
) -> Result<Json<DeploymentView>, Failure> {
    query.finish()?;
    let described = deployments::get(&state.app, &caller, path.deployment_id).await?;
    Ok(Json(DeploymentView::new(described, &state, &headers).redacted_for(&caller)))
}

/// Change a deployment.
///
/// The change takes effect with the next run of the agent. Fields that are absent from the request are unchanged.
#[utoipa::path(patch, path = "/v1/deployments/{deployment_id}", operation_id = "update_deployment",
    tag = "deployments", params(("deployment_id" = DeploymentId, Path)), request_body = UpdateDeployment,
    responses((status = 200, body = DeploymentView), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 413, body = ErrorBody),
        (status = 415, body = ErrorBody), (status = 422, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn update_deployment(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Json<DeploymentView>, Failure> {
    query.finish()?;
    let changes = body::update(&body, state.app.settings())?;
    let described = deployments::update(&state.app, &caller, path.deployment_id, changes).await?;
    Ok(Json(DeploymentView::new(described, &state, &headers)))
}

/// Retry the provisioning of a deployment whose status is `error`.
///
/// If there is no image to pull and no snapshot to restore, the deployment becomes `ready` immediately.
#[utoipa::path(post, path = "/v1/deployments/{deployment_id}/retry", operation_id = "retry_deployment",
    tag = "deployments", params(("deployment_id" = DeploymentId, Path)),
    responses((status = 200, body = DeploymentView), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 413, body = ErrorBody), (status = 415, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn retry_deployment(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    headers: HeaderMap,
    claim: OptionalClaim,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Json<DeploymentView>, Failure> {
    query.finish()?;
    no_fields(body.as_ref())?;
    let app = state.app.clone();
    let view = move |described: &DeploymentDetails| DeploymentView::new(described.clone(), &state, &headers);
    let reply = claim.reply_with(StatusCode::OK, view.clone());
    let described = deployments::retry(&app, &caller, path.deployment_id, reply).await?;
    Ok(Json(view(&described)))
}

/// A deleted deployment.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DeletedDeployment {
    deployment_id: DeploymentId,
    #[schema(example = "deleted")]
    status: &'static str,
    /// The snapshot in which the deployment's files are retained. Absent unless `retain_filesystem` was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot_id: Option<SnapshotId>,
    /// The time at which the server deletes the snapshot. Absent unless `retain_filesystem` was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot_expires_at: Option<Timestamp>,
}

/// The optional request body of `delete_deployment`. Its field has the same effect as the query parameter
/// `retain_filesystem`.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it only describes the schema")]
pub(crate) struct DeleteDeployment {
    #[schema(default = false)]
    retain_filesystem: Option<bool>,
}

/// Delete a deployment with its runs, sandbox, workspace, threads and events.
///
/// If `retain_filesystem` is true, the files of the workspace are retained for 30 days as a snapshot. A new deployment
/// of the same customer can start with the files of the snapshot (`restore_snapshot`).
#[utoipa::path(delete, path = "/v1/deployments/{deployment_id}", operation_id = "delete_deployment",
    tag = "deployments",
    params(("deployment_id" = DeploymentId, Path), ("retain_filesystem" = Option<bool>, Query)),
    request_body = Option<DeleteDeployment>,
    responses((status = 200, body = DeletedDeployment), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn delete_deployment(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Json<DeletedDeployment>, Failure> {
    let in_query = match query.take("retain_filesystem").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => {
            query.error("retain_filesystem", "must be `true` or `false`");
            false
        }
    };
    query.finish()?;
    let in_body = body.as_ref().map(retain_in_body).transpose()?.unwrap_or(false);
    let files = if in_query || in_body { FileRetention::Retain } else { FileRetention::Destroy };
    let snapshot = deployments::delete(&state.app, &caller, path.deployment_id, files).await?;
    Ok(Json(DeletedDeployment {
        deployment_id: path.deployment_id,
        status: "deleted",
        snapshot_id: snapshot.as_ref().map(|snapshot| snapshot.snapshot_id),
        snapshot_expires_at: snapshot.map(|snapshot| snapshot.expires_at),
    }))
}

fn retain_in_body(body: &Value) -> Result<bool, Error> {
    let mut errors = FieldErrors::default();
    let mut object = Object::from_body(body, &mut errors);
    let retain = object.boolean("retain_filesystem", false, &mut errors);
    object.finish(&mut errors);
    errors.check()?;
    Ok(retain)
}
