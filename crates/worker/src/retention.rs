//! Removes data whose retention period has ended: idempotency records, events, snapshots and thread workspaces.

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

/// The maximum number of rows that are removed in one transaction. Small batches keep the transactions short, so that
/// other writers do not wait long.
const BATCH_ROWS: i64 = 500;
/// A thread's own workspace is destroyed when the thread has had no activity for this time, in milliseconds.
const WORKSPACE_RETENTION_MS: i64 = DAY_MS;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// The interval between two sweeps, in milliseconds.
const SWEEP_INTERVAL_MS: i64 = 10 * 60 * 1000;

/// Sweeps immediately, because data may have expired while no server was running, and then periodically until `stop`
/// is cancelled.
pub(crate) async fn run(context: Arc<Context>, stop: CancellationToken) {
    loop {
        let sweeps = async {
            log_sweep("idempotency records", sweep_idempotency_records(&context.store).await);
            if let Some(days) = context.event_retention_days {
                log_sweep("events", sweep_events(&context.store, days).await);
            }
            log_sweep("snapshots", sweep_snapshots(&context.store, &context.snapshots).await);
            let stop = |workspace| {
                let pool = context.sandbox_pool.clone();
                async move {
                    pool.stop_unused(workspace).await.map_err(|error| Error::Io(io::Error::other(error)))
                }
            };
            log_sweep("threads' workspaces", sweep_threads(&context.store, &context.workspaces, stop).await);
        };
        // Aborting a sweep at any point is safe, because each batch is its own transaction.
        if stop.run_until_cancelled(sweeps).await.is_none() {
            return;
        }
        let pause = u64::try_from(context.jittered(SWEEP_INTERVAL_MS)).unwrap_or_default();
        if stop.run_until_cancelled(tokio::time::sleep(Duration::from_millis(pause))).await.is_none() {
            return;
        }
    }
}

fn log_sweep(what: &str, swept: Result<u64, Error>) {
    match swept {
        Ok(0) => {}
        Ok(removed) => tracing::debug!(removed, data = what, "removed expired data"),
        // The failed sweep is not retried here: the next sweep removes the remaining data.
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                data = what,
                "failed to remove expired data; the next sweep will retry"
            );
        }
    }
}

/// Removes expired idempotency records in batches. Returns the number of removed records.
pub async fn sweep_idempotency_records(store: &Store) -> Result<u64, Error> {
    let mut removed = 0;
    loop {
        let batch = store
            .transaction("remove_outdated", |tx| {
                Box::pin(idempotent_requests::remove_outdated(tx, BATCH_ROWS))
            })
            .await?;
        removed += batch;
        if batch < BATCH_ROWS.unsigned_abs() {
            return Ok(removed);
        }
    }
}

/// Removes the events that are older than `days` days, in all deployments. Returns the number of removed events.
pub async fn sweep_events(store: &Store, days: u32) -> Result<u64, Error> {
    let retention_ms = i64::from(days) * DAY_MS;
    let (mut after, mut removed) = (None, 0);
    loop {
        let found = store
            .read("find_outdated_events", move |tx| {
                let before = tx.now().plus_ms(-retention_ms);
                Box::pin(events::deployments_with_older(tx, after, before, BATCH_ROWS))
            })
            .await?;
        for deployment_id in found.iter().copied() {
            removed += trim(store, deployment_id, retention_ms).await?;
        }
        after = found.last().copied();
        if (found.len() as u64) < BATCH_ROWS.unsigned_abs() {
            return Ok(removed);
        }
    }
}

/// Removes a deployment's events that are older than `retention_ms`, in batches. Returns the number of removed
/// events.
async fn trim(store: &Store, deployment_id: DeploymentId, retention_ms: i64) -> Result<u64, Error> {
    let mut removed = 0;
    loop {
        let batch = store
            .transaction("trim_events", move |tx| {
                let before = tx.now().plus_ms(-retention_ms);
                Box::pin(events::trim(tx, deployment_id, before, BATCH_ROWS))
            })
            .await?;
        removed += batch;
        if batch < BATCH_ROWS.unsigned_abs() {
            return Ok(removed);
        }
    }
}

/// Removes the rows of expired snapshots, then every snapshot file without a row: the files of the removed snapshots,
/// and files left by a crash. Returns the number of removed files.
pub async fn sweep_snapshots(store: &Store, snapshots: &Snapshots) -> Result<u64, Error> {
    loop {
        let batch = store
            .transaction("remove_expired_snapshots", |tx| Box::pin(snapshots::remove_expired(tx, BATCH_ROWS)))
            .await?;
        if (batch.len() as u64) < BATCH_ROWS.unsigned_abs() {
            break;
        }
    }
    // A snapshot's row is inserted before its file is written, so a file without a row does not belong to a snapshot
    // that is still being created.
    let on_disk = snapshots.clone();
    let found = run_blocking(move || on_disk.sweep()).await?;
    let mut removed = 0;
    for ids in found.chunks(BATCH_ROWS.unsigned_abs() as usize) {
        let candidates = ids.to_vec();
        let known = store
            .read("find_snapshots", move |tx| {
                Box::pin(async move { snapshots::existing(tx, &candidates).await })
            })
            .await?;
        for id in ids.iter().filter(|id| !known.contains(id)).copied() {
            let on_disk = snapshots.clone();
            run_blocking(move || on_disk.remove(id)).await?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Destroys the workspaces of deleted threads, and of threads without an active run that have had no activity for a
/// day. A run that waits for a person counts as active. The callback `stop` stops a workspace's sandbox. If it returns
/// false, the sandbox is in use and the workspace is retained. Returns the number of destroyed workspaces.
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
    for deployment_id in run_blocking(move || on_disk.deployments_with_threads()).await? {
        let on_disk = workspaces.clone();
        for workspace in run_blocking(move || on_disk.list(deployment_id)).await? {
            let WorkspaceId::Thread(_, thread_id) = workspace else { continue };
            let is_idle_now = store
                .read("find_idle_thread", move |tx| Box::pin(is_idle(tx, deployment_id, thread_id)))
                .await?;
            if is_idle_now && stop(workspace).await? {
                removed += u64::from(set_workspace_aside(store, workspaces, deployment_id, thread_id).await?);
            }
        }
        let on_disk = workspaces.clone();
        run_blocking(move || on_disk.destroy_set_aside(deployment_id).map_err(io::Error::other)).await?;
    }
    Ok(removed)
}

/// If the thread is idle, renames its workspace. From then on no run uses this workspace, so it can be destroyed later.
/// Returns false if the thread is not idle.
async fn set_workspace_aside(
    store: &Store,
    workspaces: &Workspaces,
    deployment_id: DeploymentId,
    thread_id: ThreadId,
) -> Result<bool, Error> {
    let on_disk = workspaces.clone();
    store
        .transaction("set_workspace_aside", move |tx| {
            Box::pin(async move {
                // `is_idle` locks the thread until the transaction ends, so no run starts before the workspace is
                // renamed. A later run creates a new workspace.
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
    let since = tx.now().plus_ms(-WORKSPACE_RETENTION_MS);
    Ok(thread.active_run_id.is_none() && thread.last_activity_at <= since)
}

/// Runs blocking file operations on Tokio's blocking thread pool.
async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(io::Error::other)??)
}
