//! `…/messages`: sends messages to the agent of a deployment.

mod attachments;

use axum::Json;
use axum::extract::State;
use herm_app::messages::{self, Destination, MessageInput};
use herm_types::error::ErrorBody;
use herm_types::run::RunStatus;
use herm_types::thread::Attachment;
use herm_types::{DeploymentId, Error, RunId, ThreadId};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use crate::auth::Auth;
use crate::error::Failure;
use crate::idempotency::OptionalClaim;
use crate::input::{DeploymentPath, FieldErrors, JsonBody, Object, Query};
use crate::state::ApiState;

/// The maximum length of the text of a message, in characters. A longer message is rejected.
const MAX_CONTENT_CHARS: usize = 1024 * 1024;

/// A message to send to the agent.
#[derive(utoipa::ToSchema)]
#[expect(
    dead_code,
    reason = "it only describes the schema; the body is parsed field by field to report all errors"
)]
pub(crate) struct SendMessage {
    /// The text of the message. Required unless there are attachments.
    #[schema(min_length = 1)]
    content: Option<String>,
    #[schema(max_items = 20)]
    attachments: Option<Vec<Attachment>>,
    /// The id of the thread to which the message is sent, or `new` to create a thread. Defaults to the default thread.
    thread_id: Option<String>,
}

/// An accepted message, and the run that processes it. The events of the deployment show the progress of the run.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct SentMessage {
    run_id: RunId,
    deployment_id: DeploymentId,
    thread_id: ThreadId,
    status: RunStatus,
}

/// Send a message to the agent.
///
/// If the thread has an active run, that run reads the message before its next step. Otherwise, the message starts a
/// new run.
#[utoipa::path(post, path = "/v1/deployments/{deployment_id}/messages", operation_id = "send_message",
    tag = "messages", params(("deployment_id" = DeploymentId, Path)), request_body = SendMessage,
    responses((status = 202, body = SentMessage), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 413, body = ErrorBody), (status = 415, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn send_message(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    claim: OptionalClaim,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<SentMessage>), Failure> {
    query.finish()?;
    let (destination, said) = parse(&body)?;
    let (deployment_id, app) = (path.deployment_id, &state.app);
    let reply = claim.reply_with(StatusCode::ACCEPTED, move |sent| SentMessage::new(sent, deployment_id));
    let sent = messages::send(app, &caller, deployment_id, destination, said, reply).await?;
    Ok((StatusCode::ACCEPTED, Json(SentMessage::new(&sent, deployment_id))))
}

impl SentMessage {
    fn new(sent: &messages::AcceptedMessage, deployment_id: DeploymentId) -> Self {
        Self { run_id: sent.run_id, deployment_id, thread_id: sent.thread_id, status: sent.status }
    }
}

fn parse(body: &Value) -> Result<(Destination, MessageInput), Error> {
    let mut errors = FieldErrors::default();
    let mut object = Object::from_body(body, &mut errors);
    let attachments = attachments::read(&mut object, &mut errors);
    let content = match &attachments {
        Some(attachments) if !attachments.is_empty() => {
            object.string("content", 0..=MAX_CONTENT_CHARS, &mut errors)
        }
        _ => object.required_string("content", 1..=MAX_CONTENT_CHARS, &mut errors),
    };
    let destination = match object.string("thread_id", 1..=64, &mut errors).as_deref() {
        None => Destination::Default,
        Some("new") => Destination::New,
        Some(text) => text.parse().map(Destination::Thread).unwrap_or_else(|error| {
            errors.add("thread_id", format!("{error}, or `new` to create a thread"));
            Destination::Default
        }),
    };
    object.finish(&mut errors);
    errors.check()?;
    let said =
        MessageInput { content: content.unwrap_or_default(), attachments: attachments.unwrap_or_default() };
    Ok((destination, said))
}
