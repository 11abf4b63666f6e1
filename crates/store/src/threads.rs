//! Threads, and which run is at work on each.

use herm_types::run::RunStatus;
use herm_types::thread::ThreadStatus;
use herm_types::{DeploymentId, RunId, ThreadId, Timestamp};

use crate::row::{Row, params};
use crate::{Error, Tx};

/// A thread's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadRow {
    pub thread_id: ThreadId,
    pub deployment_id: DeploymentId,
    pub title: Option<String>,
    /// The run that has not ended yet; there is one at most.
    pub active_run_id: Option<RunId>,
    pub message_count: i64,
    pub created_at: Timestamp,
    pub last_activity_at: Timestamp,
}

/// Adds an empty thread.
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

/// The thread, if the deployment has it.
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

/// The same, locked until the transaction ends: who sends to a thread and who ends its run take turns.
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

/// Notes activity on a thread: its active run from now on, and how many messages were added.
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

/// A thread's status, by its active run.
pub async fn status(tx: &mut Tx, thread: &ThreadRow) -> Result<ThreadStatus, Error> {
    let Some(run_id) = thread.active_run_id else { return Ok(ThreadStatus::Idle) };
    let status = tx
        .one("SELECT status FROM runs WHERE run_id = $1", params![run_id.to_string()])
        .await?
        .map(|row| row.text(0))
        .transpose()?;
    Ok(ThreadStatus::of_active_run(status.as_deref().and_then(RunStatus::parse)))
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
