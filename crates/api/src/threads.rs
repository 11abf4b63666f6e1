//! `…/threads`.

use axum::Json;
use axum::extract::State;
use herm_app::threads;
use herm_types::error::ErrorBody;
use herm_types::thread::Thread;
use herm_types::{DeploymentId, MessageId, ThreadId};

use crate::auth::Auth;
use crate::error::Failure;
use crate::input::{DeploymentPath, Query};
use crate::router::Shared;

/// Get a thread with its last 100 messages, oldest first.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/threads/{thread_id}", operation_id = "get_thread",
    tag = "threads",
    params(("deployment_id" = DeploymentId, Path), ("thread_id" = ThreadId, Path),
        ("messages_cursor" = Option<String>, Query, description = "From the response before: older messages.")),
    responses((status = 200, body = Thread), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn get_thread(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
) -> Result<Json<Thread>, Failure> {
    let before = query.parse::<MessageId>("messages_cursor");
    query.finish()?;
    let thread_id = path.id("thread", "thread_id")?;
    Ok(Json(threads::get(&shared.app, &caller, path.deployment_id, thread_id, before).await?))
}
