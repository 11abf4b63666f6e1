//! `/v1/deployments`.

mod body;
mod sandbox;
mod schema;
mod view;

use axum::Json;
use axum::extract::State;
use herm_app::deployments::{self, Described, Files};
use herm_types::deployment::{DeploymentItem, DeploymentStatus};
use herm_types::error::ErrorBody;
use herm_types::paging::Page;
use herm_types::{DeploymentId, Error, SnapshotId, Timestamp};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::Value;

use crate::auth::Auth;
use crate::error::Failure;
use crate::idempotency::Once;
use crate::input::{DeploymentPath, Faults, JsonBody, Object, OptionalJsonBody, Query, no_fields};
use crate::router::Shared;
pub(crate) use schema::{CreateDeployment, UpdateDeployment};
pub(crate) use view::DeploymentView;

/// Make a deployment: one customer's own agent.
#[utoipa::path(post, path = "/v1/deployments", operation_id = "create_deployment", tag = "deployments",
    request_body = CreateDeployment,
    responses((status = 201, body = DeploymentView), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 413, body = ErrorBody), (status = 415, body = ErrorBody), (status = 422, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
pub(crate) async fn create_deployment(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    query: Query,
    headers: HeaderMap,
    once: Once,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<DeploymentView>), Failure> {
    query.finish()?;
    let create = body::create(&body, shared.app.settings())?;
    let app = shared.app.clone();
    let view = move |made: &Described| DeploymentView::of(made.clone(), &shared, &headers);
    let reply = once.reply_with(StatusCode::CREATED, view.clone());
    let made = deployments::create(&app, &caller, create, reply).await?;
    Ok((StatusCode::CREATED, Json(view(&made))))
}

/// List deployments, newest first.
#[utoipa::path(get, path = "/v1/deployments", operation_id = "list_deployments", tag = "deployments",
    params(("customer_id" = Option<String>, Query), ("status" = Option<DeploymentStatus>, Query),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<DeploymentItem>), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(crate) async fn list_deployments(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    mut query: Query,
) -> Result<Json<Page<DeploymentItem>>, Failure> {
    let filter = deployments::ListFilter {
        customer_id: query.text("customer_id"),
        status: query.choice("status", DeploymentStatus::parse, "provisioning, ready, error"),
    };
    let page = query.page::<DeploymentId>();
    query.finish()?;
    Ok(Json(deployments::list(&shared.app, &caller, filter, page).await?))
}

/// Get a deployment.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}", operation_id = "get_deployment", tag = "deployments",
    params(("deployment_id" = DeploymentId, Path)),
    responses((status = 200, body = DeploymentView), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn get_deployment(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    headers: HeaderMap,
) -> Result<Json<DeploymentView>, Failure> {
    query.finish()?;
    let described = deployments::get(&shared.app, &caller, path.deployment_id).await?;
    Ok(Json(DeploymentView::of(described, &shared, &headers).shown_to(&caller)))
}

/// Change a deployment, from its agent's next run on. What is left out stays.
#[utoipa::path(patch, path = "/v1/deployments/{deployment_id}", operation_id = "update_deployment",
    tag = "deployments", params(("deployment_id" = DeploymentId, Path)), request_body = UpdateDeployment,
    responses((status = 200, body = DeploymentView), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 413, body = ErrorBody),
        (status = 415, body = ErrorBody), (status = 422, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn update_deployment(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Json<DeploymentView>, Failure> {
    query.finish()?;
    let changes = body::update(&body, shared.app.settings())?;
    let described = deployments::update(&shared.app, &caller, path.deployment_id, changes).await?;
    Ok(Json(DeploymentView::of(described, &shared, &headers)))
}

/// Provision a deployment again whose status is `error`. What it lacks may be there by now: then it is `ready` at once.
#[utoipa::path(post, path = "/v1/deployments/{deployment_id}/retry", operation_id = "retry_deployment",
    tag = "deployments", params(("deployment_id" = DeploymentId, Path)),
    responses((status = 200, body = DeploymentView), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 413, body = ErrorBody), (status = 415, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn retry_deployment(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    headers: HeaderMap,
    once: Once,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Json<DeploymentView>, Failure> {
    query.finish()?;
    no_fields(body.as_ref())?;
    let app = shared.app.clone();
    let view = move |made: &Described| DeploymentView::of(made.clone(), &shared, &headers);
    let reply = once.reply_with(StatusCode::OK, view.clone());
    let made = deployments::retry(&app, &caller, path.deployment_id, reply).await?;
    Ok(Json(view(&made)))
}

/// A deployment that is gone.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DeletedDeployment {
    deployment_id: DeploymentId,
    #[schema(example = "deleted")]
    status: &'static str,
    /// With `retain_filesystem`: what its files become.
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot_id: Option<SnapshotId>,
    /// With `retain_filesystem`: when that is erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot_expires_at: Option<Timestamp>,
}

/// The body of a deletion, if it has one: the query's parameter says the same.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it is the shape alone")]
pub(crate) struct DeleteDeployment {
    #[schema(default = false)]
    retain_filesystem: Option<bool>,
}

/// Delete a deployment with everything under it: runs, sandbox, workspace, threads and events. With
/// `retain_filesystem` the files are kept for 30 days, as a snapshot that another deployment of the customer can begin
/// with.
#[utoipa::path(delete, path = "/v1/deployments/{deployment_id}", operation_id = "delete_deployment",
    tag = "deployments",
    params(("deployment_id" = DeploymentId, Path), ("retain_filesystem" = Option<bool>, Query)),
    request_body = Option<DeleteDeployment>,
    responses((status = 200, body = DeletedDeployment), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn delete_deployment(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Json<DeletedDeployment>, Failure> {
    let in_query = match query.text("retain_filesystem").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => {
            query.fault("retain_filesystem", "must be true or false");
            false
        }
    };
    query.finish()?;
    let in_body = body.as_ref().map(retain_in_body).transpose()?.unwrap_or(false);
    let files = if in_query || in_body { Files::Retain } else { Files::Destroy };
    let kept = deployments::delete(&shared.app, &caller, path.deployment_id, files).await?;
    Ok(Json(DeletedDeployment {
        deployment_id: path.deployment_id,
        status: "deleted",
        snapshot_id: kept.as_ref().map(|snapshot| snapshot.snapshot_id),
        snapshot_expires_at: kept.map(|snapshot| snapshot.expires_at),
    }))
}

fn retain_in_body(body: &Value) -> Result<bool, Error> {
    let mut faults = Faults::default();
    let mut object = Object::of_body(body, &mut faults);
    let retain = object.boolean("retain_filesystem", false, &mut faults);
    object.finish(&mut faults);
    faults.check()?;
    Ok(retain)
}
