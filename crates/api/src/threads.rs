//! `…/threads`.

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
use crate::idempotency::Once;
use crate::input::{DeploymentPath, Faults, JsonBody, Object, OptionalJsonBody, Query};
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

const MAX_TITLE_CHARS: usize = 256;

/// The body of a create, and of an update.
#[derive(utoipa::ToSchema)]
#[schema(as = ThreadTitle)]
#[expect(dead_code, reason = "it is the shape alone: the body is read field by field to find all its faults")]
pub(crate) struct ThreadTitle {
    /// `null`: none.
    #[schema(min_length = 1, max_length = 256)]
    title: Option<String>,
}

fn title(body: &Value) -> Result<Option<String>, Error> {
    let mut faults = Faults::default();
    let mut object = Object::of_body(body, &mut faults);
    let title = object.text("title", 1..=MAX_TITLE_CHARS, &mut faults);
    object.finish(&mut faults);
    faults.check()?;
    Ok(title)
}

/// Make a thread: a conversation of its own, with the same agent, files and memory.
#[utoipa::path(post, path = "/v1/deployments/{deployment_id}/threads", operation_id = "create_thread", tag = "threads",
    params(("deployment_id" = DeploymentId, Path)), request_body = Option<ThreadTitle>,
    responses((status = 201, body = ThreadInfo), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn create_thread(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    once: Once,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<(StatusCode, Json<ThreadInfo>), Failure> {
    query.finish()?;
    let title = body.as_ref().map(title).transpose()?.flatten();
    let reply = once.reply(StatusCode::CREATED);
    let made = threads::create(&shared.app, &caller, path.deployment_id, title, reply).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// List threads, newest first.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/threads", operation_id = "list_threads", tag = "threads",
    params(("deployment_id" = DeploymentId, Path), ("limit" = Option<u32>, Query, minimum = 1, maximum = 100),
        ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<ThreadItem>), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn list_threads(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
) -> Result<Json<Page<ThreadItem>>, Failure> {
    let page = query.page::<ThreadId>();
    query.finish()?;
    Ok(Json(threads::list(&shared.app, &caller, path.deployment_id, page).await?))
}

/// Rename a thread.
#[utoipa::path(patch, path = "/v1/deployments/{deployment_id}/threads/{thread_id}", operation_id = "update_thread",
    tag = "threads", params(("deployment_id" = DeploymentId, Path), ("thread_id" = ThreadId, Path)),
    request_body = ThreadTitle,
    responses((status = 200, body = ThreadInfo), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn update_thread(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    JsonBody(body): JsonBody,
) -> Result<Json<ThreadInfo>, Failure> {
    query.finish()?;
    let thread_id = path.id("thread", "thread_id")?;
    let (app, deployment_id) = (&shared.app, path.deployment_id);
    let title = title(&body)?;
    if body.get("title").is_none() {
        // Nothing is to be changed.
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

/// Delete a thread: its run is cancelled, its messages and events are erased. The default thread stays.
#[utoipa::path(delete, path = "/v1/deployments/{deployment_id}/threads/{thread_id}", operation_id = "delete_thread",
    tag = "threads", params(("deployment_id" = DeploymentId, Path), ("thread_id" = ThreadId, Path)),
    responses((status = 200, body = DeletedThread), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn delete_thread(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
) -> Result<Json<DeletedThread>, Failure> {
    query.finish()?;
    let thread_id = path.id("thread", "thread_id")?;
    threads::delete(&shared.app, &caller, path.deployment_id, thread_id).await?;
    Ok(Json(DeletedThread { thread_id, status: "deleted" }))
}
