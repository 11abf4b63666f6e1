//! `…/threads`: creates, reads, lists, renames and deletes the threads of a deployment.

use axum::Json;
use axum::extract::State;
use herm_app::threads;
use herm_types::error::ErrorBody;
use herm_types::paging::Page;
use herm_types::thread::{Thread, ThreadInfo, ThreadItem};
use herm_types::{DeploymentId, Error, MessageId, ThreadId};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use crate::auth::Auth;
use crate::error::Failure;
use crate::idempotency::OptionalClaim;
use crate::input::{DeploymentPath, FieldErrors, JsonBody, Object, OptionalJsonBody, Query};
use crate::state::ApiState;

/// Get a thread with its latest 100 messages, oldest first.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/threads/{thread_id}", operation_id = "get_thread",
    tag = "threads",
    params(("deployment_id" = DeploymentId, Path), ("thread_id" = ThreadId, Path),
        ("messages_cursor" = Option<String>, Query, description = "The `messages_cursor` of the previous response, to get older messages.")),
    responses((status = 200, body = Thread), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn get_thread(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
) -> Result<Json<Thread>, Failure> {
    let before = query.parse::<MessageId>("messages_cursor");
    query.finish()?;
    let thread_id = path.id("thread", "thread_id")?;
    Ok(Json(threads::get(&state.app, &caller, path.deployment_id, thread_id, before).await?))
}

const MAX_TITLE_CHARS: usize = 256;

/// The title of a thread to create or rename.
#[derive(utoipa::ToSchema)]
#[schema(as = ThreadTitle)]
#[expect(
    dead_code,
    reason = "it only describes the schema; the body is parsed field by field to report all errors"
)]
pub(crate) struct ThreadTitle {
    /// The title, or `null` for a thread without a title.
    #[schema(min_length = 1, max_length = 256)]
    title: Option<String>,
}

fn title(body: &Value) -> Result<Option<String>, Error> {
    let mut errors = FieldErrors::default();
    let mut object = Object::from_body(body, &mut errors);
    let title = object.string("title", 1..=MAX_TITLE_CHARS, &mut errors);
    object.finish(&mut errors);
    errors.check()?;
    Ok(title)
}

/// Create a thread: a separate conversation with the same agent.
///
/// The threads of a deployment share the deployment's settings and, if the file system is persistent, the workspace.
#[utoipa::path(post, path = "/v1/deployments/{deployment_id}/threads", operation_id = "create_thread", tag = "threads",
    params(("deployment_id" = DeploymentId, Path)), request_body = Option<ThreadTitle>,
    responses((status = 201, body = ThreadInfo), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn create_thread(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    claim: OptionalClaim,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<(StatusCode, Json<ThreadInfo>), Failure> {
    query.finish()?;
    let title = body.as_ref().map(title).transpose()?.flatten();
    let reply = claim.reply(StatusCode::CREATED);
    let thread = threads::create(&state.app, &caller, path.deployment_id, title, reply).await?;
    Ok((StatusCode::CREATED, Json(thread)))
}

/// List the threads of a deployment, newest first.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/threads", operation_id = "list_threads", tag = "threads",
    params(("deployment_id" = DeploymentId, Path), ("limit" = Option<u32>, Query, minimum = 1, maximum = 100),
        ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<ThreadItem>), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn list_threads(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
) -> Result<Json<Page<ThreadItem>>, Failure> {
    let page = query.page::<ThreadId>();
    query.finish()?;
    Ok(Json(threads::list(&state.app, &caller, path.deployment_id, page).await?))
}

/// Change the title of a thread.
#[utoipa::path(patch, path = "/v1/deployments/{deployment_id}/threads/{thread_id}", operation_id = "update_thread",
    tag = "threads", params(("deployment_id" = DeploymentId, Path), ("thread_id" = ThreadId, Path)),
    request_body = ThreadTitle,
    responses((status = 200, body = ThreadInfo), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn update_thread(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    JsonBody(body): JsonBody,
) -> Result<Json<ThreadInfo>, Failure> {
    query.finish()?;
    let thread_id = path.id("thread", "thread_id")?;
    let (app, deployment_id) = (&state.app, path.deployment_id);
    let title = title(&body)?;
    if body.get("title").is_none() {
        // An absent title leaves the thread unchanged, while `null` removes the title.
        return Ok(Json(threads::info(app, &caller, deployment_id, thread_id).await?));
    }
    Ok(Json(threads::rename(app, &caller, deployment_id, thread_id, title).await?))
}

/// A deleted thread.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DeletedThread {
    thread_id: ThreadId,
    #[schema(pattern = "^deleted$")]
    status: &'static str,
}

/// Delete a thread.
///
/// The active run of the thread is cancelled, and the messages and events of the thread are deleted. The default thread
/// cannot be deleted.
#[utoipa::path(delete, path = "/v1/deployments/{deployment_id}/threads/{thread_id}", operation_id = "delete_thread",
    tag = "threads", params(("deployment_id" = DeploymentId, Path), ("thread_id" = ThreadId, Path)),
    responses((status = 200, body = DeletedThread), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn delete_thread(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
) -> Result<Json<DeletedThread>, Failure> {
    query.finish()?;
    let thread_id = path.id("thread", "thread_id")?;
    threads::delete(&state.app, &caller, path.deployment_id, thread_id).await?;
    Ok(Json(DeletedThread { thread_id, status: "deleted" }))
}
