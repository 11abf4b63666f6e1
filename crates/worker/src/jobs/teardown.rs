//! Tears down a deleted deployment: runs, sandboxes, files, rows. If a snapshot was requested, the workspace is
//! destroyed only after the snapshot is complete. Every step can be repeated: after a crash, the work item is claimed
//! again and all steps are executed from the beginning.

use std::sync::Arc;

use herm_sandbox::WorkspaceId;
use herm_store::queue;
use herm_store::{Error, deployments, failpoint};

use super::snapshot::{self, WorkspaceFate};
use crate::context::Context;
use crate::lease::HeldLease;
use crate::running::{self, RunningGuard};

pub(crate) async fn tear_down(
    context: &Context,
    lease: &HeldLease,
    guard: &Arc<RunningGuard>,
) -> Result<(), Error> {
    let deployment_id = lease.deployment_id;
    context.running.cancel_deployment(deployment_id, lease.work_id).await;
    failpoint::reach("teardown", "sandbox");
    for workspace in context.workspaces.list(deployment_id)? {
        retire(context, workspace).await?;
    }
    failpoint::reach("teardown", "snapshot");
    let workspace_fate = snapshot::create_if_requested(context, lease, guard).await?;
    failpoint::reach("teardown", "workspace");
    if workspace_fate == WorkspaceFate::Destroy {
        let workspaces = context.workspaces.clone();
        let destroyed = running::run_blocking(guard, move |_| Ok(workspaces.destroy(deployment_id)?)).await;
        destroyed.map_err(|error| Error::Io(std::io::Error::other(error)))?;
    }
    failpoint::reach("teardown", "rows");
    loop {
        let retry_ms = context.jittered(snapshot::RETRY_DELAY_MS);
        let is_done = lease
            .transaction("erase_deployment", move |tx, lease| {
                Box::pin(async move {
                    let is_done = deployments::erase_contents(tx, lease.deployment_id).await?;
                    match workspace_fate {
                        WorkspaceFate::Destroy if is_done => queue::complete(tx, &lease).await?,
                        // Everything except the workspace is deleted. The work item stays in the queue until the
                        // workspace is destroyed too.
                        WorkspaceFate::Retain if is_done => snapshot::postpone(tx, &lease, retry_ms).await?,
                        _ => {}
                    }
                    Ok(is_done)
                })
            })
            .await?;
        if is_done {
            return Ok(());
        }
    }
}

pub(super) async fn retire(context: &Context, workspace: WorkspaceId) -> Result<(), Error> {
    context.sandbox_pool.retire(workspace).await.map_err(|error| Error::Io(std::io::Error::other(error)))
}
