//! Removes what has been kept long enough.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use herm_sandbox::snapshots::Snapshots;
use herm_sandbox::{WorkspaceId, Workspaces};
use herm_store::{Error, Store, Tx, events, idempotent_requests, snapshots, threads};
use herm_types::{DeploymentId, ThreadId};
use tokio_util::sync::CancellationToken;

use crate::worker::Context;

/// Rows that one transaction removes at most, so that others never wait long for it.
const BATCH: i64 = 500;
/// How long a thread's own workspace is kept that nobody uses, in milliseconds: a day.
const IDLE_MS: i64 = DAY_MS;
/// A day, in milliseconds.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Between two sweeps, in milliseconds.
const SWEEP_EVERY_MS: i64 = 10 * 60 * 1000;

/// Sweeps until it is stopped: at once, for what came of age while no server ran, and then from time to time.
pub(crate) async fn run(context: Arc<Context>, stop: CancellationToken) {
    loop {
        let sweeps = async {
            told("idempotency records", sweep(&context.store).await);
            if let Some(days) = context.event_retention_days {
                told("events", sweep_events(&context.store, days).await);
            }
            told("snapshots", sweep_snapshots(&context.store, &context.snapshots).await);
            let stop = |workspace| {
                let keeper = context.keeper.clone();
                async move {
                    keeper.stop_unused(workspace).await.map_err(|error| Error::Io(io::Error::other(error)))
                }
            };
            told("threads' workspaces", sweep_threads(&context.store, &context.workspaces, stop).await);
        };
        // Between two batches it stops as well as anywhere.
        if stop.run_until_cancelled(sweeps).await.is_none() {
            return;
        }
        let pause = u64::try_from(context.jittered(SWEEP_EVERY_MS)).unwrap_or_default();
        if stop.run_until_cancelled(tokio::time::sleep(Duration::from_millis(pause))).await.is_none() {
            return;
        }
    }
}

fn told(what: &str, swept: Result<u64, Error>) {
    match swept {
        Ok(0) => {}
        Ok(removed) => tracing::debug!(removed, what, "removed what is outdated"),
        // What is left is as outdated the next time.
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                what,
                "failed to remove what is outdated"
            );
        }
    }
}

/// Removes everything outdated, batch by batch; gives how many rows.
pub async fn sweep(store: &Store) -> Result<u64, Error> {
    let mut removed = 0;
    loop {
        let batch = store
            .transaction("remove_outdated", |tx| Box::pin(idempotent_requests::remove_outdated(tx, BATCH)))
            .await?;
        removed += batch;
        if batch < BATCH.unsigned_abs() {
            return Ok(removed);
        }
    }
}

/// Removes events that are older than so many days, deployment by deployment; gives how many.
pub async fn sweep_events(store: &Store, days: u32) -> Result<u64, Error> {
    let kept_ms = i64::from(days) * DAY_MS;
    let (mut after, mut removed) = (None, 0);
    loop {
        let found = store
            .read("find_outdated_events", move |tx| {
                let before = tx.now().plus_ms(-kept_ms);
                Box::pin(events::with_older(tx, after, before, BATCH))
            })
            .await?;
        for deployment_id in found.iter().copied() {
            removed += trim(store, deployment_id, kept_ms).await?;
        }
        after = found.last().copied();
        if (found.len() as u64) < BATCH.unsigned_abs() {
            return Ok(removed);
        }
    }
}

/// Removes a deployment's outdated events, batch by batch.
async fn trim(store: &Store, deployment_id: DeploymentId, kept_ms: i64) -> Result<u64, Error> {
    let mut removed = 0;
    loop {
        let batch = store
            .transaction("trim_events", move |tx| {
                let before = tx.now().plus_ms(-kept_ms);
                Box::pin(events::trim(tx, deployment_id, before, BATCH))
            })
            .await?;
        removed += batch;
        if batch < BATCH.unsigned_abs() {
            return Ok(removed);
        }
    }
}

/// Removes expired snapshots, and then every file that belongs to no snapshot: that of one that has just gone, and what a
/// crash left. Gives how many files.
pub async fn sweep_snapshots(store: &Store, snapshots: &Snapshots) -> Result<u64, Error> {
    loop {
        let batch = store
            .transaction("remove_expired_snapshots", |tx| Box::pin(snapshots::remove_expired(tx, BATCH)))
            .await?;
        if (batch.len() as u64) < BATCH.unsigned_abs() {
            break;
        }
    }
    // A row is there before its file: a file that is seen without one is nobody's for good.
    let on_disk = snapshots.clone();
    let found = blocking(move || on_disk.sweep()).await?;
    let mut removed = 0;
    for ids in found.chunks(BATCH.unsigned_abs() as usize) {
        let asked = ids.to_vec();
        let known = store
            .read("find_snapshots", move |tx| Box::pin(async move { snapshots::known(tx, &asked).await }))
            .await?;
        for id in ids.iter().filter(|id| !known.contains(id)).copied() {
            let on_disk = snapshots.clone();
            blocking(move || on_disk.remove(id)).await?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Destroys the workspaces of threads that are gone, or that nobody has used for a while; gives how many. Those that a
/// run works in or waits with stay, however long that takes. `stop` ends a workspace's sandbox, if nobody uses it.
pub async fn sweep_threads<F>(
    store: &Store,
    workspaces: &Workspaces,
    stop: impl Fn(WorkspaceId) -> F + Send + Sync,
) -> Result<u64, Error>
where
    F: Future<Output = Result<bool, Error>> + Send,
{
    let on_disk = workspaces.clone();
    let mut removed = 0;
    for deployment_id in blocking(move || on_disk.with_threads()).await? {
        let on_disk = workspaces.clone();
        for workspace in blocking(move || on_disk.of_deployment(deployment_id)).await? {
            let WorkspaceId::Thread(_, thread_id) = workspace else { continue };
            let is_idle_now = store
                .read("find_idle_thread", move |tx| Box::pin(is_idle(tx, deployment_id, thread_id)))
                .await?;
            if is_idle_now && stop(workspace).await? {
                removed += u64::from(set_aside(store, workspaces, deployment_id, thread_id).await?);
            }
        }
        let on_disk = workspaces.clone();
        blocking(move || on_disk.destroy_set_aside(deployment_id).map_err(io::Error::other)).await?;
    }
    Ok(removed)
}

/// Takes a thread's workspace away, if it is idle; `false` if not.
async fn set_aside(
    store: &Store,
    workspaces: &Workspaces,
    deployment_id: DeploymentId,
    thread_id: ThreadId,
) -> Result<bool, Error> {
    let on_disk = workspaces.clone();
    store
        .transaction("set_workspace_aside", move |tx| {
            Box::pin(async move {
                // The thread is locked until its workspace has its new name: who comes later finds a new one.
                let is_idle = is_idle(tx, deployment_id, thread_id).await?;
                if is_idle {
                    on_disk.set_aside(deployment_id, thread_id)?;
                }
                Ok(is_idle)
            })
        })
        .await
}

async fn is_idle(tx: &mut Tx, deployment_id: DeploymentId, thread_id: ThreadId) -> Result<bool, Error> {
    let Some(thread) = threads::find_and_lock(tx, deployment_id, thread_id).await? else { return Ok(true) };
    let since = tx.now().plus_ms(-IDLE_MS);
    Ok(thread.active_run_id.is_none() && thread.last_activity_at <= since)
}

/// Does what blocks where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(io::Error::other)??)
}
