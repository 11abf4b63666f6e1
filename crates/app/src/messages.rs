//! Messages to an agent. A message is the only way to start a run.

use herm_store::runs::{self, NewRun};
use herm_store::{Tx, messages, queue, threads};
use herm_types::deployment::DeploymentStatus;
use herm_types::event::Event;
use herm_types::key::Scope;
use herm_types::run::RunStatus;
use herm_types::thread::{Attachment, Role};
use herm_types::{DeploymentId, ErrorCode, IdSource, MessageId, RunId, ThreadId};

use crate::idempotency::Reply;
use crate::{App, Caller, Error, steering};

/// Selects the thread that receives a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The deployment's default thread.
    Default,
    /// A new thread, created with the message.
    New,
    Thread(ThreadId),
}

/// The result of sending a message: its thread, and the run that will read it.
#[derive(Clone, Copy, Debug)]
pub struct AcceptedMessage {
    pub run_id: RunId,
    pub thread_id: ThreadId,
    pub status: RunStatus,
}

/// The content of a message. Every field has been validated.
#[derive(Clone, Debug)]
pub struct MessageInput {
    /// The text of the message. Empty only if the message has attachments.
    pub content: String,
    pub attachments: Vec<Attachment>,
}

/// Accepts a message. If the thread has no active run, a new run starts. If the active run waits for a
/// person, the message answers the oldest steering request of the run. Otherwise the active run reads the
/// message in its next step.
pub async fn send(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    destination: Destination,
    input: MessageInput,
    reply: Reply<AcceptedMessage>,
) -> Result<AcceptedMessage, Error> {
    caller.require(Scope::MessagesSend)?;
    app.refuse_while_draining()?;
    let caller = caller.clone();
    let ids = app.ids.clone();
    app.transaction("send_message", reply, move |tx| {
        Box::pin(async move {
            let deployment = caller.deployment(tx, deployment_id).await?;
            if deployment.status != DeploymentStatus::Ready {
                let message =
                    format!("The deployment is not ready; its status is `{}`.", deployment.status.as_str());
                return Err(herm_types::Error::new(ErrorCode::DeploymentNotReady, message).into());
            }
            let thread_id = match destination {
                Destination::Default => deployment.default_thread_id,
                Destination::Thread(thread_id) => thread_id,
                Destination::New => {
                    let thread_id = ids.next();
                    threads::insert(tx, thread_id, deployment_id, None).await?;
                    thread_id
                }
            };
            accept(tx, &caller, deployment_id, thread_id, &ids, input).await
        })
    })
    .await
}

async fn accept(
    tx: &mut Tx,
    caller: &Caller,
    deployment_id: DeploymentId,
    thread_id: ThreadId,
    ids: &IdSource,
    input: MessageInput,
) -> Result<AcceptedMessage, Error> {
    // `make_due` locks the work item. It must be locked before the thread, because workers lock in this order
    // too. A different order could cause a deadlock.
    if let Some(run_id) = steering::waiting_run(tx, thread_id).await? {
        queue::make_due(tx, deployment_id, &run_id.to_string()).await?;
    }
    let thread = threads::find_and_lock(tx, deployment_id, thread_id)
        .await?
        .ok_or_else(|| herm_types::Error::not_found("thread", &thread_id.to_string()))?;
    // Generate the message id while the thread is locked. Messages are read in the order of their ids, and
    // this must be the order in which they were accepted.
    let message_id: MessageId = ids.next();
    let mut answers = None;
    let (run_id, status) = match thread.active_run_id {
        Some(run_id) => {
            let text = herm_agent::user_text(&input.content, &input.attachments);
            answers = steering::answer_by_message(tx, thread_id, &text, caller, ids).await?;
            (run_id, status_of_active(tx, deployment_id, run_id, answers.is_some()).await?)
        }
        None => {
            let (run_id, work_id) = (ids.next(), ids.next());
            runs::begin(tx, NewRun { run_id, work_id, deployment_id, thread_id }).await?;
            (run_id, RunStatus::Queued)
        }
    };
    let message = messages::NewMessage {
        message_id,
        thread_id,
        run_id,
        role: Role::User,
        content: input.content,
        attachments: input.attachments,
        truncated: false,
        answers,
    };
    messages::insert(tx, &message).await?;
    threads::touch(tx, thread_id, Some(run_id), 1).await?;
    let event = Event::Message {
        run_id,
        thread_id,
        message_id,
        role: Role::User,
        content: message.content,
        attachments: message.attachments,
        truncated: false,
    };
    tx.emit(deployment_id, event);
    Ok(AcceptedMessage { run_id, thread_id, status })
}

async fn status_of_active(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    run_id: RunId,
    is_answer: bool,
) -> Result<RunStatus, Error> {
    if !is_answer && messages::count_pending(tx, run_id).await? >= messages::MAX_PENDING {
        let message = format!(
            "The active run of this thread already has the maximum of {} unread messages; send more when it has read some.",
            messages::MAX_PENDING
        );
        return Err(herm_types::Error::new(ErrorCode::Conflict, message).into());
    }
    let run = runs::find(tx, deployment_id, run_id).await?;
    Ok(run
        .ok_or_else(|| herm_store::Error::Corrupt(format!("the active run {run_id} does not exist")))?
        .status)
}
