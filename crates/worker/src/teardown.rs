//! Tearing down what was deleted: a deployment with its runs, its sandbox, its files and its rows; a thread with its
//! run and its rows. Files that are to be kept are kept before they are destroyed, or not destroyed. Each part may be done again, so that a crash between any two is made good by the next claim.

use std::sync::Arc;

use herm_sandbox::WorkspaceId;
use herm_sandbox::workspace::Workspace;
use herm_store::queue::{self, Lease};
use herm_store::{Error, deployments, fault, journal, runs, threads};
use herm_types::ThreadId;
use herm_types::id::EventId;

use crate::dispatch::subject;
use crate::in_hand::{self, InHand};
use crate::run;
use crate::snapshot::{self, Files};
use crate::worker::Context;

pub(crate) async fn tear_down(context: &Context, lease: &Lease, in_hand: &Arc<InHand>) -> Result<(), Error> {
    let deployment_id = lease.deployment_id;
    context.running.cancel_of_deployment(deployment_id, lease.work_id).await;
    fault::reach("teardown", "sandbox");
    for workspace in context.workspaces.of_deployment(deployment_id)? {
        retire(context, workspace).await?;
    }
    fault::reach("teardown", "snapshot");
    let files = snapshot::keep(context, lease, in_hand).await?;
    fault::reach("teardown", "workspace");
    if files == Files::Done {
        let workspaces = context.workspaces.clone();
        let destroyed = in_hand::blocking(in_hand, move |_| Ok(workspaces.destroy(deployment_id)?)).await;
        destroyed.map_err(|error| Error::Io(std::io::Error::other(error)))?;
    }
    fault::reach("teardown", "rows");
    loop {
        let (held, jittered) = (lease.clone(), context.jittered(snapshot::RETRY_MS));
        let is_done = context
            .store
            .transaction("erase_deployment", move |tx| {
                Box::pin(async move {
                    queue::hold(tx, &held).await?;
                    let is_done = deployments::erase_contents(tx, held.deployment_id).await?;
                    match files {
                        Files::Done if is_done => queue::complete(tx, &held).await?,
                        // The workspace is all that is left, and the item lasts as long as it.
                        Files::Wait if is_done => snapshot::postpone(tx, &held, jittered).await?,
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
    context.keeper.retire(workspace).await.map_err(|error| Error::Io(std::io::Error::other(error)))
}

/// Runs of a thread that may still be in hand: there is one that has not ended at most, and it is the last.
const LAST_RUNS: i64 = 2;

pub(crate) async fn erase_thread(
    context: &Context,
    lease: &Lease,
    in_hand: &Arc<InHand>,
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
    context.running.cancel_of_subjects(&subjects).await;
    for call in calls {
        context.keeper.abandon(WorkspaceId::Deployment(deployment_id), run::call_name(call));
    }
    fault::reach("erase_thread", "workspace");
    // A thread that shares its deployment's workspace has none of its own.
    let own = WorkspaceId::Thread(deployment_id, thread_id);
    retire(context, own).await?;
    let dir = context.workspaces.dir_of(own);
    let destroyed = in_hand::blocking(in_hand, move |_| Ok(Workspace::destroy(&dir)?)).await;
    destroyed.map_err(|error| Error::Io(std::io::Error::other(error)))?;
    fault::reach("erase_thread", "rows");
    let mut from = Some(EventId(0));
    while let Some(begin) = from {
        let held = lease.clone();
        from = context
            .store
            .transaction("erase_thread", move |tx| {
                Box::pin(async move {
                    queue::hold(tx, &held).await?;
                    let next = threads::erase_contents(tx, deployment_id, thread_id, begin).await?;
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
