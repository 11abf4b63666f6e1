//! Tears down deleted deployments (runs, sandboxes, files, rows) and deleted threads (run, workspace, rows). If a
//! snapshot was requested, the workspace is destroyed only after the snapshot is complete. Every step can be
//! repeated: after a crash, the work item is claimed again and all steps are executed from the beginning.

use std::sync::Arc;

use herm_sandbox::WorkspaceId;
use herm_sandbox::workspace::Workspace;
use herm_store::queue::{self, Lease};
use herm_store::{Error, deployments, failpoint, journal, runs, threads};
use herm_types::ThreadId;
use herm_types::id::EventId;

use crate::dispatch::subject;
use crate::run;
use crate::running::{self, RunningGuard};
use crate::snapshot::{self, WorkspaceFate};
use crate::worker::Context;

pub(crate) async fn tear_down(
    context: &Context,
    lease: &Lease,
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
        let (held, jittered) = (lease.clone(), context.jittered(snapshot::RETRY_DELAY_MS));
        let is_done = context
            .store
            .transaction("erase_deployment", move |tx| {
                Box::pin(async move {
                    queue::hold(tx, &held).await?;
                    let is_done = deployments::erase_contents(tx, held.deployment_id).await?;
                    match workspace_fate {
                        WorkspaceFate::Destroy if is_done => queue::complete(tx, &held).await?,
                        // Everything except the workspace is deleted. The work item stays in the queue until the
                        // workspace is destroyed too.
                        WorkspaceFate::Retain if is_done => snapshot::postpone(tx, &held, jittered).await?,
                        _ => {}
                    }
                    Ok::<_, Error>(is_done)
                })
            })
            .await?;
        if is_done {
            return Ok(());
        }
    }
}

async fn retire(context: &Context, workspace: WorkspaceId) -> Result<(), Error> {
    context.sandbox_pool.retire(workspace).await.map_err(|error| Error::Io(std::io::Error::other(error)))
}

/// The number of a deleted thread's latest runs whose tasks and commands are stopped. Only the last run of a thread can
/// be active; the run before it is included as a precaution.
const LAST_RUNS: i64 = 2;

pub(crate) async fn erase_thread(
    context: &Context,
    lease: &Lease,
    guard: &Arc<RunningGuard>,
) -> Result<(), Error> {
    let (deployment_id, thread_id) = (lease.deployment_id, subject::<ThreadId>(lease)?);
    let (run_ids, calls) = context
        .store
        .read("load_deleted_thread", move |tx| {
            Box::pin(async move {
                let run_ids = runs::last_of_thread(tx, thread_id, LAST_RUNS).await?;
                let mut calls = Vec::new();
                for run_id in &run_ids {
                    calls.extend(journal::open_tools(tx, *run_id).await?);
                }
                Ok::<_, Error>((run_ids, calls))
            })
        })
        .await?;
    let subjects: Vec<String> = run_ids.iter().map(ToString::to_string).collect();
    context.running.cancel_subjects(&subjects).await;
    for call in calls {
        context.sandbox_pool.abandon(WorkspaceId::Deployment(deployment_id), run::call_name(call));
    }
    failpoint::reach("erase_thread", "workspace");
    // If the thread shares its deployment's workspace, it has no workspace of its own. Stopping the sandbox and
    // destroying the directory then have no effect.
    let workspace = WorkspaceId::Thread(deployment_id, thread_id);
    retire(context, workspace).await?;
    let dir = context.workspaces.dir_of(workspace);
    let destroyed = running::run_blocking(guard, move |_| Ok(Workspace::destroy(&dir)?)).await;
    destroyed.map_err(|error| Error::Io(std::io::Error::other(error)))?;
    failpoint::reach("erase_thread", "rows");
    let mut next_start = Some(EventId(0));
    while let Some(start) = next_start {
        let held = lease.clone();
        next_start = context
            .store
            .transaction("erase_thread", move |tx| {
                Box::pin(async move {
                    queue::hold(tx, &held).await?;
                    let next = threads::erase_contents(tx, deployment_id, thread_id, start).await?;
                    if next.is_none() {
                        queue::complete(tx, &held).await?;
                    }
                    Ok::<_, Error>(next)
                })
            })
            .await?;
    }
    Ok(())
}
