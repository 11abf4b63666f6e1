//! `…/runs`: lists, reads and cancels the runs of a deployment.

use axum::Json;
use axum::extract::State;
use herm_app::{runs, steps};
use herm_types::error::ErrorBody;
use herm_types::paging::Page;
use herm_types::run::{Run, RunStatus, RunStep};
use herm_types::{DeploymentId, RunId, ThreadId};
use http::StatusCode;

use crate::auth::Auth;
use crate::error::Failure;
use crate::idempotency::OptionalClaim;
use crate::input::{DeploymentPath, OptionalJsonBody, Query, no_fields};
use crate::state::ApiState;

const STATUSES: &str = "`queued`, `running`, `waiting_on_human`, `completed`, `error`, `cancelled`";

/// List the runs of a deployment, newest first.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/runs", operation_id = "list_runs", tag = "runs",
    params(("deployment_id" = DeploymentId, Path), ("thread_id" = Option<ThreadId>, Query),
        ("status" = Option<RunStatus>, Query), ("limit" = Option<u32>, Query, minimum = 1, maximum = 100),
        ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<Run>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn list_runs(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
) -> Result<Json<Page<Run>>, Failure> {
    let filter = runs::Filter {
        thread_id: query.parse("thread_id"),
        status: query.choice("status", RunStatus::parse, STATUSES),
    };
    let page = query.page::<RunId>();
    query.finish()?;
    Ok(Json(runs::list(&state.app, &caller, path.deployment_id, filter, page).await?))
}

/// Get a run.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/runs/{run_id}", operation_id = "get_run", tag = "runs",
    params(("deployment_id" = DeploymentId, Path), ("run_id" = RunId, Path)),
    responses((status = 200, body = Run), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
pub(crate) async fn get_run(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
) -> Result<Json<Run>, Failure> {
    query.finish()?;
    let run_id = path.id("run", "run_id")?;
    Ok(Json(runs::get(&state.app, &caller, path.deployment_id, run_id).await?))
}

/// List the model calls and tool calls of a run, in the order in which they started.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/runs/{run_id}/steps", operation_id = "list_steps",
    tag = "runs", params(("deployment_id" = DeploymentId, Path), ("run_id" = RunId, Path),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<RunStep>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn list_steps(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
) -> Result<Json<Page<RunStep>>, Failure> {
    let page = query.page::<steps::StepCursor>();
    query.finish()?;
    let run_id = path.id("run", "run_id")?;
    Ok(Json(steps::list(&state.app, &caller, path.deployment_id, run_id, page).await?))
}

/// Cancel a run.
///
/// The active model call or tool calls of the run are stopped, and the run ends with the status `cancelled`. If the run
/// has already ended, the response is 409.
#[utoipa::path(post, path = "/v1/deployments/{deployment_id}/runs/{run_id}/cancel", operation_id = "cancel_run",
    tag = "runs", params(("deployment_id" = DeploymentId, Path), ("run_id" = RunId, Path)),
    responses((status = 202, body = Run), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 413, body = ErrorBody), (status = 415, body = ErrorBody)))]
pub(crate) async fn cancel_run(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    claim: OptionalClaim,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<(StatusCode, Json<Run>), Failure> {
    query.finish()?;
    no_fields(body.as_ref())?;
    let run_id = path.id("run", "run_id")?;
    let reply = claim.reply(StatusCode::ACCEPTED);
    let run = runs::cancel(&state.app, &caller, path.deployment_id, run_id, reply).await?;
    Ok((StatusCode::ACCEPTED, Json(run)))
}
