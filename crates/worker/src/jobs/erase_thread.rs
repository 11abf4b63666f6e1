//! Erases a deleted thread: its run, its workspace, its rows. Every step can be repeated: after a crash, the work item
//! is claimed again and all steps are executed from the beginning.

use std::sync::Arc;

use herm_sandbox::WorkspaceId;
use herm_sandbox::workspace::Workspace;
use herm_store::queue;
use herm_store::{Error, failpoint, journal, runs, threads};
use herm_types::ThreadId;
use herm_types::id::EventId;

use super::teardown;
use crate::context::Context;
use crate::lease::HeldLease;
use crate::running::{self, RunningGuard};

/// When a thread is deleted, this many of its latest runs are stopped. Only the latest run can be active; the run
/// before it is included as a precaution.
const LAST_RUNS: i64 = 2;

pub(crate) async fn erase_thread(
    context: &Context,
    lease: &HeldLease,
    guard: &Arc<RunningGuard>,
) -> Result<(), Error> {
    let (deployment_id, thread_id) = (lease.deployment_id, lease.subject::<ThreadId>()?);
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
        context.sandbox_pool.abandon(WorkspaceId::Deployment(deployment_id), call.call_name());
    }
    failpoint::reach("erase_thread", "workspace");
    // If the thread shares its deployment's workspace, it has no workspace of its own. Stopping the sandbox and
    // destroying the directory then have no effect.
    let workspace = WorkspaceId::Thread(deployment_id, thread_id);
    teardown::retire(context, workspace).await?;
    let dir = context.workspaces.dir_of(workspace);
    let destroyed = running::run_blocking(guard, move |_| Ok(Workspace::destroy(&dir)?)).await;
    destroyed.map_err(|error| Error::Io(std::io::Error::other(error)))?;
    failpoint::reach("erase_thread", "rows");
    let mut next_start = Some(EventId(0));
    while let Some(start) = next_start {
        next_start = lease
            .transaction("erase_thread", move |tx, lease| {
                Box::pin(async move {
                    let next = threads::erase_contents(tx, deployment_id, thread_id, start).await?;
                    if next.is_none() {
                        queue::complete(tx, &lease).await?;
                    }
                    Ok(next)
                })
            })
            .await?;
    }
    Ok(())
}
