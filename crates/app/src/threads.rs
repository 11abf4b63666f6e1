//! Threads: create, get, list, rename and delete.

use herm_store::runs::{self, Transition};
use herm_store::{Tx, messages, queue, threads};
use herm_types::key::Scope;
use herm_types::paging::{Page, PageRequest};
use herm_types::thread::{Thread, ThreadInfo, ThreadItem};
use herm_types::{DeploymentId, ErrorCode, MessageId, ThreadId, WorkId};

use crate::idempotency::Reply;
use crate::{App, Caller, Error, steering};

/// The maximum number of messages in the response to a request for a thread. Older messages are on further
/// pages.
const MESSAGES_SHOWN: u32 = 100;

/// Returns a thread with the latest 100 messages that are older than `before`, in ascending order. With
/// `None`, returns the latest messages of the thread.
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
                let thread =
                    threads::find(tx, deployment_id, thread_id).await?.ok_or_else(|| missing(thread_id))?;
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

/// Creates an empty thread.
pub async fn create(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    title: Option<String>,
    reply: Reply<ThreadInfo>,
) -> Result<ThreadInfo, Error> {
    caller.require(Scope::ThreadsWrite)?;
    app.refuse_while_draining()?;
    let (caller, thread_id) = (caller.clone(), app.ids.next::<ThreadId>());
    app.transaction("create_thread", reply, move |tx| {
        Box::pin(async move {
            caller.deployment(tx, deployment_id).await?;
            threads::insert(tx, thread_id, deployment_id, title).await?;
            read_info(tx, deployment_id, thread_id).await
        })
    })
    .await
}

/// Returns a page of a deployment's threads, newest first.
pub async fn list(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    page: PageRequest,
) -> Result<Page<ThreadItem>, Error> {
    caller.require(Scope::DeploymentsRead)?;
    let (caller, limit) = (caller.clone(), page.limit);
    let rows = app
        .store
        .read("list_threads", move |tx| {
            Box::pin(async move {
                caller.deployment(tx, deployment_id).await?;
                Ok::<_, Error>(threads::list(tx, deployment_id, &page).await?)
            })
        })
        .await?;
    let items = rows.into_iter().map(|(row, status)| ThreadItem {
        thread_id: row.thread_id,
        title: row.title,
        status,
        message_count: row.message_count,
        last_activity_at: row.last_activity_at,
    });
    Ok(Page::from_rows(items.collect(), limit, |item| item.thread_id.to_string()))
}

/// Returns a thread without its messages.
pub async fn info(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    thread_id: ThreadId,
) -> Result<ThreadInfo, Error> {
    caller.require(Scope::DeploymentsRead)?;
    let caller = caller.clone();
    app.store
        .read("get_thread_info", move |tx| {
            Box::pin(async move {
                caller.deployment(tx, deployment_id).await?;
                read_info(tx, deployment_id, thread_id).await
            })
        })
        .await
}

/// Sets or removes the title of a thread.
pub async fn rename(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    thread_id: ThreadId,
    title: Option<String>,
) -> Result<ThreadInfo, Error> {
    caller.require(Scope::ThreadsWrite)?;
    let caller = caller.clone();
    app.store
        .transaction("rename_thread", move |tx| {
            Box::pin(async move {
                caller.deployment(tx, deployment_id).await?;
                read_info(tx, deployment_id, thread_id).await?;
                threads::rename(tx, thread_id, title.as_deref()).await?;
                read_info(tx, deployment_id, thread_id).await
            })
        })
        .await
}

async fn read_info(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    thread_id: ThreadId,
) -> Result<ThreadInfo, Error> {
    let thread = threads::find(tx, deployment_id, thread_id).await?.ok_or_else(|| missing(thread_id))?;
    let status = threads::status(tx, &thread).await?;
    Ok(ThreadInfo {
        thread_id,
        deployment_id,
        title: thread.title,
        status,
        message_count: thread.message_count,
        last_activity_at: thread.last_activity_at,
        created_at: thread.created_at,
    })
}

fn missing(thread_id: ThreadId) -> herm_types::Error {
    herm_types::Error::not_found("thread", &thread_id.to_string())
}

/// Deletes a thread and cancels its active run. The transaction also enqueues a work item that erases the
/// messages and events of the thread.
pub async fn delete(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    thread_id: ThreadId,
) -> Result<(), Error> {
    caller.require(Scope::ThreadsWrite)?;
    let (caller, work_id) = (caller.clone(), app.ids.next::<WorkId>());
    app.store
        .transaction("delete_thread", move |tx| {
            Box::pin(async move {
                let deployment = caller.deployment(tx, deployment_id).await?;
                read_info(tx, deployment_id, thread_id).await?;
                if thread_id == deployment.default_thread_id {
                    let message = "The default thread cannot be deleted; delete the deployment instead.";
                    return Err(herm_types::Error::new(ErrorCode::Conflict, message).into());
                }
                // `remove_of_thread` locks the work items of the thread. They must be locked before the
                // thread, because workers lock in this order too. A different order could cause a deadlock.
                // Until the thread is locked, another run may be created. The second call removes its work
                // item.
                queue::remove_of_thread(tx, deployment_id, thread_id).await?;
                if !threads::delete(tx, thread_id).await? {
                    return Err(missing(thread_id).into());
                }
                queue::remove_of_thread(tx, deployment_id, thread_id).await?;
                end_run(tx, thread_id).await?;
                let subject = thread_id.to_string();
                Ok(queue::enqueue(tx, work_id, queue::Kind::EraseThread, subject, deployment_id).await?)
            })
        })
        .await
}

/// Cancels the active run of a thread that is being deleted, and its steering requests. Has no effect if the
/// thread has no active run.
async fn end_run(tx: &mut Tx, thread_id: ThreadId) -> Result<(), Error> {
    for run_id in runs::last_of_thread(tx, thread_id, 1).await? {
        steering::cancel_all(tx, thread_id).await?;
        runs::transition(tx, run_id, Transition::Cancel(None)).await?;
    }
    Ok(())
}
