//! Destroys the workspaces of threads that are deleted or idle.

use std::future::Future;
use std::io;

use herm_sandbox::{WorkspaceId, Workspaces};
use herm_store::{Error, Store, Tx, threads};
use herm_types::{DeploymentId, ThreadId};

use super::batch::run_blocking;

/// A thread's own workspace is destroyed when the thread has had no activity for this time, in milliseconds: one day.
const WORKSPACE_RETENTION_MS: i64 = 24 * 60 * 60 * 1000;

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
