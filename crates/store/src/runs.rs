//! Runs and their status.

use herm_types::event::Event;
use herm_types::paging::PageRequest;
use herm_types::run::{Run, RunError, RunStatus, Trigger, Usage};
use herm_types::{DeploymentId, RunId, ThreadId, WorkId};

use crate::deployments::max_id;
use crate::row::{Row, params};
use crate::{Error, Tx, queue};

/// Filters for a list of runs. A filter that is `None` matches every run.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub thread_id: Option<ThreadId>,
    pub status: Option<RunStatus>,
}

/// A run that is about to begin, and the work item that executes it.
#[derive(Clone, Copy, Debug)]
pub struct NewRun {
    pub run_id: RunId,
    pub work_id: WorkId,
    pub deployment_id: DeploymentId,
    pub thread_id: ThreadId,
}

/// Begins a run: inserts it with the status `queued`, enqueues its work item, and emits an event.
pub async fn begin(tx: &mut Tx, new: NewRun) -> Result<(), Error> {
    let NewRun { run_id, work_id, deployment_id, thread_id } = new;
    insert(tx, run_id, deployment_id, thread_id).await?;
    queue::enqueue(tx, work_id, queue::Kind::Run, run_id.to_string(), deployment_id).await?;
    let status = RunStatus::Queued;
    tx.emit(deployment_id, Event::RunStatus { run_id, thread_id, status, error: None, usage: None });
    Ok(())
}

/// Inserts a run with the status `queued`, without a work item and without an event.
pub async fn insert(
    tx: &mut Tx,
    run_id: RunId,
    deployment_id: DeploymentId,
    thread_id: ThreadId,
) -> Result<(), Error> {
    let now = tx.now();
    tx.execute(
        "INSERT INTO runs (run_id, deployment_id, thread_id, status, error, usage, created_at, started_at, \
         ended_at, number) VALUES ($1, $2, $3, 'queued', NULL, '{}', $4, NULL, NULL, \
         1 + COALESCE((SELECT number FROM runs WHERE thread_id = $3 ORDER BY run_id DESC LIMIT 1), \
         (SELECT COUNT(*) FROM runs WHERE thread_id = $3)))",
        params![run_id.to_string(), deployment_id.to_string(), thread_id.to_string(), now],
    )
    .await?;
    Ok(())
}

/// Returns the run if it belongs to the deployment.
pub async fn find(tx: &mut Tx, deployment_id: DeploymentId, run_id: RunId) -> Result<Option<Run>, Error> {
    tx.one(
        "SELECT run_id, deployment_id, thread_id, status, error, usage, created_at, started_at, ended_at, cancel_requested_at \
         FROM runs WHERE run_id = $1 AND deployment_id = $2",
        params![run_id.to_string(), deployment_id.to_string()],
    )
    .await?
    .map(|row| run(&row))
    .transpose()
}

/// Returns a page of a deployment's runs, newest first, plus one extra row if there is a next page.
pub async fn list(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    filter: &Filter,
    page: &PageRequest,
) -> Result<Vec<Run>, Error> {
    let rows = tx
        .all(
            "SELECT run_id, deployment_id, thread_id, status, error, usage, created_at, started_at, ended_at, \
             cancel_requested_at FROM runs WHERE deployment_id = $1 AND run_id < $2 AND ($3 = '' OR thread_id = $3) \
             AND ($4 = '' OR status = $4) ORDER BY run_id DESC LIMIT $5",
            params![
                deployment_id.to_string(),
                page.after.clone().unwrap_or_else(max_id::<RunId>),
                filter.thread_id.map(|id| id.to_string()).unwrap_or_default(),
                filter.status.map_or("", RunStatus::as_str),
                i64::from(page.limit) + 1,
            ],
        )
        .await?;
    rows.iter().map(run).collect()
}

/// A change of a run's status after its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    /// From `queued` or `waiting_on_human` to `running`. The first time, the run also gets the deployment's current
    /// version, which it then uses until it ends.
    Start,
    /// From `running` to `waiting_on_human`.
    Wait,
    /// From `running` to `completed`.
    Complete(Usage),
    /// From `running` to `error`.
    Fail(RunError, Usage),
    /// From any status that is not final to `cancelled`. `None` if the usage is not known.
    Cancel(Option<Usage>),
}

impl Transition {
    /// Returns the status after the transition.
    fn to(&self) -> RunStatus {
        match self {
            Self::Start => RunStatus::Running,
            Self::Wait => RunStatus::WaitingOnHuman,
            Self::Complete(_) => RunStatus::Completed,
            Self::Fail(..) => RunStatus::Error,
            Self::Cancel(_) => RunStatus::Cancelled,
        }
    }
}

/// Changes the status of a run and emits an event. Returns false, without any change, if the run does not have a status
/// from which the transition starts.
pub async fn transition(tx: &mut Tx, run_id: RunId, transition: Transition) -> Result<bool, Error> {
    let now = tx.now();
    let status = transition.to();
    let row = match &transition {
        Transition::Start => {
            tx.one(
                "UPDATE runs SET status = 'running', started_at = COALESCE(started_at, $1), \
                 version = COALESCE(version, (SELECT version FROM deployments \
                 WHERE deployments.deployment_id = runs.deployment_id)) \
                 WHERE run_id = $2 AND status IN ('queued', 'waiting_on_human') RETURNING deployment_id, thread_id",
                params![now, run_id.to_string()],
            )
            .await?
        }
        Transition::Wait => {
            tx.one(
                "UPDATE runs SET status = 'waiting_on_human' WHERE run_id = $1 AND status = 'running' \
                 RETURNING deployment_id, thread_id",
                params![run_id.to_string()],
            )
            .await?
        }
        Transition::Complete(usage) => end(tx, run_id, status, None, usage, "running").await?,
        Transition::Fail(error, usage) => end(tx, run_id, status, Some(error), usage, "running").await?,
        Transition::Cancel(usage) => {
            end(tx, run_id, status, None, &usage.clone().unwrap_or_default(), ANY_STATUS).await?
        }
    };
    let Some(row) = row else { return Ok(false) };
    let (deployment_id, thread_id) = (row.parse(0)?, row.parse(1)?);
    let (error, usage) = match transition {
        Transition::Start | Transition::Wait => (None, None),
        Transition::Complete(usage) => (None, Some(usage)),
        Transition::Fail(error, usage) => (Some(error), Some(usage)),
        Transition::Cancel(usage) => (None, usage),
    };
    tx.emit(deployment_id, Event::RunStatus { run_id, thread_id, status, error, usage });
    Ok(true)
}

/// The value of `from` with which [`end`] ends a run in any status that is not final.
const ANY_STATUS: &str = "";

async fn end(
    tx: &mut Tx,
    run_id: RunId,
    status: RunStatus,
    error: Option<&RunError>,
    usage: &Usage,
    from: &str,
) -> Result<Option<Row>, Error> {
    let now = tx.now();
    tx.one(
        "UPDATE runs SET status = $1, error = $2, usage = $3, ended_at = $4 WHERE run_id = $5 AND ended_at IS NULL \
         AND ($6 = '' OR status = $6) RETURNING deployment_id, thread_id",
        params![
            status.as_str(),
            error.map(serde_json::to_string).transpose()?,
            serde_json::to_string(usage)?,
            now,
            run_id.to_string(),
            from,
        ],
    )
    .await
}

/// Returns the version of the deployment that the run uses, or `None` if the run has not started yet.
pub async fn version(tx: &mut Tx, run_id: RunId) -> Result<Option<i64>, Error> {
    let row = tx.one("SELECT version FROM runs WHERE run_id = $1", params![run_id.to_string()]).await?;
    Ok(row.map(|row| row.opt_int(0)).transpose()?.flatten())
}

/// Records that a client requested the cancellation of a run. The worker ends the run later. If cancellation was
/// already requested, the time of the first request is retained.
pub async fn request_cancel(tx: &mut Tx, run_id: RunId) -> Result<(), Error> {
    let now = tx.now();
    tx.execute(
        "UPDATE runs SET cancel_requested_at = COALESCE(cancel_requested_at, $1) WHERE run_id = $2",
        params![now, run_id.to_string()],
    )
    .await?;
    Ok(())
}

/// Returns true if cancellation of the run was requested.
pub async fn is_cancel_requested(tx: &mut Tx, run_id: RunId) -> Result<bool, Error> {
    let row =
        tx.one("SELECT cancel_requested_at FROM runs WHERE run_id = $1", params![run_id.to_string()]).await?;
    Ok(row.map(|row| row.opt_int(0)).transpose()?.flatten().is_some())
}

/// Returns the ids of a thread's latest runs, newest first.
pub async fn last_of_thread(tx: &mut Tx, thread_id: ThreadId, limit: i64) -> Result<Vec<RunId>, Error> {
    let rows = tx
        .all(
            "SELECT run_id FROM runs WHERE thread_id = $1 ORDER BY run_id DESC LIMIT $2",
            params![thread_id.to_string(), limit],
        )
        .await?;
    rows.iter().map(|row| row.parse(0)).collect()
}

/// Returns the highest run id in the database. A server reads it at startup and then creates only higher ids, even if
/// its clock was set back.
pub async fn newest(tx: &mut Tx) -> Result<Option<RunId>, Error> {
    let row = tx.one("SELECT run_id FROM runs ORDER BY run_id DESC LIMIT 1", &[]).await?;
    row.map(|row| row.parse(0)).transpose()
}

/// Returns the run with which the model's context begins, or `None` if the thread has no runs.
///
/// The context contains at least the last `blocks_of` runs and fewer than twice as many. Its beginning moves forward in
/// steps of `blocks_of` runs. Between two moves the prompt prefix stays the same, so that the provider can cache it.
pub async fn first_of_context(
    tx: &mut Tx,
    thread_id: ThreadId,
    blocks_of: i64,
) -> Result<Option<RunId>, Error> {
    let latest = "SELECT COALESCE(number, (SELECT COUNT(*) FROM runs WHERE thread_id = $1)) FROM runs \
                  WHERE thread_id = $1 ORDER BY run_id DESC LIMIT 1";
    let count = tx.one(latest, params![thread_id.to_string()]).await?.map_or(Ok(0), |row| row.int(0))?;
    let skipped = (count / blocks_of - 1).max(0) * blocks_of;
    // Counted from the latest run, the offset is less than twice `blocks_of`, however long the thread is.
    tx.one(
        "SELECT run_id FROM runs WHERE thread_id = $1 ORDER BY run_id DESC LIMIT 1 OFFSET $2",
        params![thread_id.to_string(), (count - 1 - skipped).max(0)],
    )
    .await?
    .map(|row| row.parse(0))
    .transpose()
}

fn run(row: &Row) -> Result<Run, Error> {
    let status = row.str(3)?;
    Ok(Run {
        run_id: row.parse(0)?,
        deployment_id: row.parse(1)?,
        thread_id: row.parse(2)?,
        trigger: Trigger::Message,
        status: RunStatus::parse(status)
            .ok_or_else(|| Error::Corrupt(format!("unknown run status {status:?}")))?,
        error: row.opt_str(4)?.map(serde_json::from_str).transpose()?,
        usage: usage(row.str(5)?)?,
        created_at: row.time(6)?,
        started_at: row.opt_time(7)?,
        ended_at: row.opt_time(8)?,
        cancel_requested_at: row.opt_time(9)?,
    })
}

fn usage(text: &str) -> Result<Usage, Error> {
    Ok(if text == "{}" { Usage::default() } else { serde_json::from_str(text)? })
}
