//! `…/messages`.

mod attachments;

use axum::Json;
use axum::extract::State;
use herm_app::messages::{self, Destination, Said};
use herm_types::error::ErrorBody;
use herm_types::run::RunStatus;
use herm_types::thread::Attachment;
use herm_types::{DeploymentId, Error, RunId, ThreadId};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use crate::auth::Auth;
use crate::error::Failure;
use crate::idempotency::Once;
use crate::input::{DeploymentPath, Faults, JsonBody, Object, Query};
use crate::router::Shared;

/// The most characters of a message: whatever fits into the largest body.
const MAX_CONTENT_CHARS: usize = 1024 * 1024;

/// The shape of the body, for the OpenAPI document.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it is the shape alone: the body is read field by field to find all its faults")]
pub(crate) struct SendMessage {
    /// May be left out where there are attachments.
    #[schema(min_length = 1)]
    content: Option<String>,
    #[schema(max_items = 20)]
    attachments: Option<Vec<Attachment>>,
    /// A thread's id, or `new` for a fresh thread; the default thread when it is left out.
    thread_id: Option<String>,
}

/// An accepted message: the work on it streams as events.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct SentMessage {
    run_id: RunId,
    deployment_id: DeploymentId,
    thread_id: ThreadId,
    status: RunStatus,
}

/// Send a message to the agent. While a run on the thread is active, it takes the message in at its next step.
#[utoipa::path(post, path = "/v1/deployments/{deployment_id}/messages", operation_id = "send_message",
    tag = "messages", params(("deployment_id" = DeploymentId, Path)), request_body = SendMessage,
    responses((status = 202, body = SentMessage), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 413, body = ErrorBody), (status = 415, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn send_message(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    once: Once,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<SentMessage>), Failure> {
    query.finish()?;
    let (destination, said) = parse(&body)?;
    let (deployment_id, app) = (path.deployment_id, &shared.app);
    let reply = once.reply_with(StatusCode::ACCEPTED, move |sent| SentMessage::of(sent, deployment_id));
    let sent = messages::send(app, &caller, deployment_id, destination, said, reply).await?;
    Ok((StatusCode::ACCEPTED, Json(SentMessage::of(&sent, deployment_id))))
}

impl SentMessage {
    fn of(sent: &messages::Sent, deployment_id: DeploymentId) -> Self {
        Self { run_id: sent.run_id, deployment_id, thread_id: sent.thread_id, status: sent.status }
    }
}

fn parse(body: &Value) -> Result<(Destination, Said), Error> {
    let mut faults = Faults::default();
    let mut object = Object::of_body(body, &mut faults);
    let attachments = attachments::read(&mut object, &mut faults);
    let content = match &attachments {
        Some(attachments) if !attachments.is_empty() => {
            object.text("content", 0..=MAX_CONTENT_CHARS, &mut faults)
        }
        _ => object.required_text("content", 1..=MAX_CONTENT_CHARS, &mut faults),
    };
    let destination = match object.text("thread_id", 1..=64, &mut faults).as_deref() {
        None => Destination::Default,
        Some("new") => Destination::New,
        Some(text) => text.parse().map(Destination::Thread).unwrap_or_else(|error| {
            faults.add("thread_id", format!("{error}, or \"new\""));
            Destination::Default
        }),
    };
    object.finish(&mut faults);
    faults.check()?;
    let said = Said { content: content.unwrap_or_default(), attachments: attachments.unwrap_or_default() };
    Ok((destination, said))
}
