//! Runs: get, list and cancel.

use herm_store::{queue, runs, threads};
use herm_types::key::Scope;
use herm_types::paging::{Page, PageRequest};
use herm_types::run::{Run, RunStatus};
use herm_types::{DeploymentId, ErrorCode, RunId};

use crate::idempotency::Reply;
use crate::{App, Caller, Error};

pub use herm_store::runs::Filter;

pub async fn get(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    run_id: RunId,
) -> Result<Run, Error> {
    caller.require(Scope::DeploymentsRead)?;
    let caller = caller.clone();
    app.store
        .read("get_run", move |tx| {
            Box::pin(async move {
                caller.deployment(tx, deployment_id).await?;
                let run = runs::find(tx, deployment_id, run_id).await?;
                Ok(run.ok_or_else(|| herm_types::Error::not_found("run", &run_id.to_string()))?)
            })
        })
        .await
}

/// Returns a page of a deployment's runs, newest first.
pub async fn list(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    filter: Filter,
    page: PageRequest,
) -> Result<Page<Run>, Error> {
    caller.require(Scope::DeploymentsRead)?;
    let (caller, limit) = (caller.clone(), page.limit);
    app.store
        .read("list_runs", move |tx| {
            Box::pin(async move {
                caller.deployment(tx, deployment_id).await?;
                let rows = runs::list(tx, deployment_id, &filter, &page).await?;
                Ok(Page::from_rows(rows, limit, |run| run.run_id.to_string()))
            })
        })
        .await
}

/// Requests the cancellation of a run. The request is stored, so the run ends even if the server is killed
/// before it has processed the request. Has no effect if the run is already cancelled or its cancellation was
/// already requested.
pub async fn cancel(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    run_id: RunId,
    reply: Reply<Run>,
) -> Result<Run, Error> {
    // Cancellation has no scope of its own: a caller that may start runs may also cancel them.
    caller.require(Scope::MessagesSend)?;
    let caller = caller.clone();
    let run = app
        .transaction("request_cancel", reply, move |tx| {
            Box::pin(async move {
                caller.deployment(tx, deployment_id).await?;
                let missing = || herm_types::Error::not_found("run", &run_id.to_string());
                let run = runs::find(tx, deployment_id, run_id).await?.ok_or_else(missing)?;
                // `make_due` locks the work item. It must be locked before the thread, because the worker
                // that ends the run locks in this order too. A different order could cause a deadlock.
                queue::make_due(tx, deployment_id, &run_id.to_string()).await?;
                threads::find_and_lock(tx, deployment_id, run.thread_id).await?;
                let run = runs::find(tx, deployment_id, run_id).await?.ok_or_else(missing)?;
                if run.status == RunStatus::Cancelled {
                    return Ok(run);
                }
                if run.status.is_ended() {
                    let message =
                        format!("The run has already ended with the status `{}`.", run.status.as_str());
                    return Err(herm_types::Error::new(ErrorCode::Conflict, message).into());
                }
                runs::request_cancel(tx, run_id).await?;
                Ok::<_, Error>(runs::find(tx, deployment_id, run_id).await?.ok_or_else(missing)?)
            })
        })
        .await?;
    app.store.feed().run_changed(run_id);
    Ok(run)
}
