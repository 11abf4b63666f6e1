//! Runs, read.

use herm_store::runs;
use herm_types::key::Scope;
use herm_types::paging::{Page, PageRequest};
use herm_types::run::Run;
use herm_types::{DeploymentId, RunId};

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

/// A page of a deployment's runs, newest first.
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
