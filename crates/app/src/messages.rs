//! Messages to an agent: the one way in which a person makes it work.

use herm_store::{Tx, messages, queue, runs, threads};
use herm_types::deployment::DeploymentStatus;
use herm_types::event::Event;
use herm_types::key::Scope;
use herm_types::run::RunStatus;
use herm_types::thread::{Attachment, Role};
use herm_types::{DeploymentId, ErrorCode, IdSource, MessageId, RunId, ThreadId};

use crate::idempotency::Reply;
use crate::{App, Caller, Error, steering};

/// Which thread a message goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    Default,
    New,
    Thread(ThreadId),
}

/// An accepted message.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub run_id: RunId,
    pub thread_id: ThreadId,
    pub status: RunStatus,
}

/// What a message says; every value is checked already.
#[derive(Clone, Debug)]
pub struct Said {
    /// Empty only where there are attachments.
    pub content: String,
    pub attachments: Vec<Attachment>,
}

/// Accepts a message. If a run of its thread asks a person, it is the answer to what was asked first; another run
/// that is active on it takes it in at its next step; otherwise a new run is made for it.
pub async fn send(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    destination: Destination,
    said: Said,
    reply: Reply<Sent>,
) -> Result<Sent, Error> {
    caller.require(Scope::MessagesSend)?;
    app.refuse_while_draining()?;
    let caller = caller.clone();
    let ids = app.ids.clone();
    app.transaction("send_message", reply, move |tx| {
        Box::pin(async move {
            let deployment = caller.deployment(tx, deployment_id).await?;
            if deployment.status != DeploymentStatus::Ready {
                let message = format!("The deployment is {}, not ready.", deployment.status.as_str());
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
            accept(tx, &caller, deployment_id, thread_id, &ids, said).await
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
    said: Said,
) -> Result<Sent, Error> {
    // Work items are locked before the thread, as workers do it.
    if let Some(run_id) = steering::asking_run(tx, thread_id).await? {
        queue::hasten(tx, deployment_id, &run_id.to_string()).await?;
    }
    let thread = threads::find_and_lock(tx, deployment_id, thread_id)
        .await?
        .ok_or_else(|| herm_types::Error::not_found("thread", &thread_id.to_string()))?;
    // Ids are made under the thread's lock: in their order its messages are read, and so they are accepted.
    let message_id: MessageId = ids.next();
    let mut answers = None;
    let (run_id, status) = match thread.active_run_id {
        Some(run_id) => {
            let text = herm_agent::user_text(&said.content, &said.attachments);
            answers = steering::answer_by_message(tx, thread_id, &text, caller, ids).await?;
            (run_id, status_of_active(tx, deployment_id, run_id, answers.is_some()).await?)
        }
        None => {
            let run_id: RunId = ids.next();
            runs::insert(tx, run_id, deployment_id, thread_id).await?;
            queue::enqueue(tx, ids.next(), queue::Kind::Run, run_id.to_string(), deployment_id).await?;
            let status = RunStatus::Queued;
            tx.emit(deployment_id, Event::RunStatus { run_id, thread_id, status, error: None, usage: None });
            (run_id, status)
        }
    };
    let message = messages::NewMessage {
        message_id,
        thread_id,
        run_id,
        role: Role::User,
        content: said.content,
        attachments: said.attachments,
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
    Ok(Sent { run_id, thread_id, status })
}

async fn status_of_active(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    run_id: RunId,
    is_answer: bool,
) -> Result<RunStatus, Error> {
    if !is_answer && messages::count_pending(tx, run_id).await? >= messages::MAX_PENDING {
        let message = format!(
            "{} messages already wait for this thread's run; send more when it has read them.",
            messages::MAX_PENDING
        );
        return Err(herm_types::Error::new(ErrorCode::Conflict, message).into());
    }
    let run = runs::find(tx, deployment_id, run_id).await?;
    Ok(run.ok_or_else(|| herm_store::Error::Corrupt(format!("active {run_id} is gone")))?.status)
}
