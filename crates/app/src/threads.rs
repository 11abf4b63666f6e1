//! Threads, read.

use herm_store::{messages, threads};
use herm_types::key::Scope;
use herm_types::thread::Thread;
use herm_types::{DeploymentId, MessageId, ThreadId};

use crate::{App, Caller, Error};

/// Messages that come with a thread.
const MESSAGES_SHOWN: u32 = 100;

/// A thread with its last 100 messages before `before`, oldest first.
pub async fn get(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    thread_id: ThreadId,
    before: Option<MessageId>,
) -> Result<Thread, Error> {
    caller.require(Scope::DeploymentsRead)?;
    let caller = caller.clone();
    app.store
        .read("get_thread", move |tx| {
            Box::pin(async move {
                caller.deployment(tx, deployment_id).await?;
                let thread = threads::find(tx, deployment_id, thread_id)
                    .await?
                    .ok_or_else(|| herm_types::Error::not_found("thread", &thread_id.to_string()))?;
                let status = threads::status(tx, &thread).await?;
                let mut messages = messages::page_before(tx, thread_id, before, MESSAGES_SHOWN).await?;
                let more = messages.len() > MESSAGES_SHOWN as usize;
                messages.truncate(MESSAGES_SHOWN as usize);
                messages.reverse();
                let oldest = messages.first().map(|message| message.message_id.to_string());
                Ok(Thread {
                    thread_id,
                    deployment_id,
                    title: thread.title,
                    status,
                    message_count: thread.message_count,
                    last_activity_at: thread.last_activity_at,
                    created_at: thread.created_at,
                    messages,
                    messages_cursor: oldest.filter(|_| more),
                })
            })
        })
        .await
}
