//! Threads and their active runs.

use herm_types::id::EventId;
use herm_types::paging::PageRequest;
use herm_types::run::RunStatus;
use herm_types::thread::ThreadStatus;
use herm_types::{DeploymentId, RunId, ThreadId, Timestamp};

use crate::deployments::max_id;
use crate::row::{Row, params};
use crate::{Error, Tx};

/// A thread, as the table `threads` stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadRow {
    pub thread_id: ThreadId,
    pub deployment_id: DeploymentId,
    pub title: Option<String>,
    /// The id of the thread's active run, or `None` if the thread is idle.
    pub active_run_id: Option<RunId>,
    pub message_count: i64,
    pub created_at: Timestamp,
    pub last_activity_at: Timestamp,
}

/// Inserts a thread without messages.
pub async fn insert(
    tx: &mut Tx,
    thread_id: ThreadId,
    deployment_id: DeploymentId,
    title: Option<String>,
) -> Result<(), Error> {
    let now = tx.now();
    tx.execute(
        "INSERT INTO threads (thread_id, deployment_id, title, active_run_id, message_count, created_at, \
         last_activity_at) VALUES ($1, $2, $3, NULL, 0, $4, $4)",
        params![thread_id.to_string(), deployment_id.to_string(), title, now],
    )
    .await?;
    Ok(())
}

/// Returns the thread with this id if it belongs to the deployment.
pub async fn find(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    thread_id: ThreadId,
) -> Result<Option<ThreadRow>, Error> {
    tx.one(
        "SELECT thread_id, deployment_id, title, active_run_id, message_count, created_at, last_activity_at \
         FROM threads WHERE thread_id = $1 AND deployment_id = $2",
        params![thread_id.to_string(), deployment_id.to_string()],
    )
    .await?
    .map(|row| thread(&row))
    .transpose()
}

/// Returns the thread with this id if it belongs to the deployment, and locks it until the transaction ends. The lock
/// prevents a message from being added to a run while the run is ending.
pub async fn find_and_lock(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    thread_id: ThreadId,
) -> Result<Option<ThreadRow>, Error> {
    tx.one(
        "SELECT thread_id, deployment_id, title, active_run_id, message_count, created_at, last_activity_at \
         FROM threads WHERE thread_id = $1 AND deployment_id = $2 FOR UPDATE",
        params![thread_id.to_string(), deployment_id.to_string()],
    )
    .await?
    .map(|row| thread(&row))
    .transpose()
}

/// Sets the active run of a thread, adds `new_messages` to its message count, and updates the time of its last
/// activity.
pub async fn touch(
    tx: &mut Tx,
    thread_id: ThreadId,
    active_run_id: Option<RunId>,
    new_messages: i64,
) -> Result<(), Error> {
    let now = tx.now();
    tx.execute(
        "UPDATE threads SET active_run_id = $1, message_count = message_count + $2, last_activity_at = $3 \
         WHERE thread_id = $4",
        params![active_run_id.map(|id| id.to_string()), new_messages, now, thread_id.to_string()],
    )
    .await?;
    Ok(())
}

/// Returns a page of a deployment's threads with their status, newest first, plus one extra row if there is a next page.
pub async fn list(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    page: &PageRequest,
) -> Result<Vec<(ThreadRow, ThreadStatus)>, Error> {
    let rows = tx
        .all(
            "SELECT threads.thread_id, threads.deployment_id, title, active_run_id, message_count, \
             threads.created_at, last_activity_at, status FROM threads \
             LEFT JOIN runs ON runs.run_id = active_run_id \
             WHERE threads.deployment_id = $1 AND threads.thread_id < $2 \
             ORDER BY threads.thread_id DESC LIMIT $3",
            params![
                deployment_id.to_string(),
                page.after.clone().unwrap_or_else(max_id::<ThreadId>),
                i64::from(page.limit) + 1,
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let status = row.opt_str(7)?.and_then(RunStatus::parse);
            Ok((thread(row)?, ThreadStatus::of_active_run(status)))
        })
        .collect()
}

/// Returns the status of a thread, which follows from the status of its active run.
pub async fn status(tx: &mut Tx, thread: &ThreadRow) -> Result<ThreadStatus, Error> {
    let Some(run_id) = thread.active_run_id else { return Ok(ThreadStatus::Idle) };
    let status = tx
        .one("SELECT status FROM runs WHERE run_id = $1", params![run_id.to_string()])
        .await?
        .map(|row| row.text(0))
        .transpose()?;
    Ok(ThreadStatus::of_active_run(status.as_deref().and_then(RunStatus::parse)))
}

/// Updates the time of a thread's last activity, after a client has accessed the thread's files.
pub async fn record_activity(tx: &mut Tx, thread_id: ThreadId) -> Result<(), Error> {
    let now = tx.now();
    tx.execute(
        "UPDATE threads SET last_activity_at = $1 WHERE thread_id = $2",
        params![now, thread_id.to_string()],
    )
    .await?;
    Ok(())
}

/// Sets the title of a thread, or removes it if `title` is `None`.
pub async fn rename(tx: &mut Tx, thread_id: ThreadId, title: Option<&str>) -> Result<(), Error> {
    tx.execute(
        "UPDATE threads SET title = $1 WHERE thread_id = $2",
        params![title.map(str::to_owned), thread_id.to_string()],
    )
    .await?;
    Ok(())
}

/// Deletes the row of a thread. Returns false if it was deleted before. Afterwards [`erase_contents`] erases the
/// thread's messages, events and runs.
pub async fn delete(tx: &mut Tx, thread_id: ThreadId) -> Result<bool, Error> {
    let deleted =
        tx.execute("DELETE FROM threads WHERE thread_id = $1", params![thread_id.to_string()]).await?;
    Ok(deleted == 1)
}

/// The maximum number of rows that one call of [`erase_contents`] erases, and the maximum number of event ids that it
/// searches. Both keep its transaction short.
const MAX_ERASED: i64 = 2000;

/// Erases one batch of a deleted thread's contents. Events are erased in order, beginning after the event `from`.
/// Returns the value of `from` for the next call, or `None` if everything is erased. The ids of erased events are not
/// reused.
pub async fn erase_contents(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    thread_id: ThreadId,
    from: EventId,
) -> Result<Option<EventId>, Error> {
    let (deployment, thread) = (deployment_id.to_string(), thread_id.to_string());
    let to = from.0 + MAX_ERASED;
    tx.execute(
        "DELETE FROM events WHERE deployment_id = $1 AND seq > $2 AND seq <= $3 AND thread_id = $4",
        params![deployment.as_str(), from.0, to, thread.as_str()],
    )
    .await?;
    if to < crate::events::head(tx, deployment_id).await?.0 {
        return Ok(Some(EventId(to)));
    }
    let statements = [
        "DELETE FROM messages WHERE message_id IN \
         (SELECT message_id FROM messages WHERE thread_id = $1 LIMIT $2)",
        "DELETE FROM steps WHERE run_id IN (SELECT run_id FROM runs WHERE thread_id = $1 ORDER BY run_id DESC LIMIT $2)",
        // Connections are erased after the tool calls in `steps`. Recording a connection locks the row of its tool
        // call, so none can be added once that row is erased.
        "DELETE FROM connections WHERE connection_id IN \
         (SELECT connection_id FROM runs r JOIN connections c \
         ON c.deployment_id = r.deployment_id AND c.run_id = r.run_id WHERE r.thread_id = $1 LIMIT $2)",
        "DELETE FROM steering_requests WHERE steering_id IN \
         (SELECT steering_id FROM steering_requests WHERE thread_id = $1 LIMIT $2)",
        "DELETE FROM runs WHERE run_id IN (SELECT run_id FROM runs WHERE thread_id = $1 ORDER BY run_id DESC LIMIT $2)",
    ];
    for statement in statements {
        if tx.execute(statement, params![thread.as_str(), MAX_ERASED]).await? > 0 {
            return Ok(Some(EventId(to)));
        }
    }
    Ok(None)
}

fn thread(row: &Row) -> Result<ThreadRow, Error> {
    Ok(ThreadRow {
        thread_id: row.parse(0)?,
        deployment_id: row.parse(1)?,
        title: row.opt_str(2)?.map(str::to_owned),
        active_run_id: row.opt_parse(3)?,
        message_count: row.int(4)?,
        created_at: row.time(5)?,
        last_activity_at: row.time(6)?,
    })
}
