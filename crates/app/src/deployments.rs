//! Deployments: made, read, deleted.

use std::collections::BTreeMap;

use herm_store::{deployments, queue, threads};
use herm_types::deployment::{
    Deployment, DeploymentItem, DeploymentSettings, DeploymentStatus, Features, RUNTIME, SandboxSettings,
    SandboxType,
};
use herm_types::event::Event;
use herm_types::key::Scope;
use herm_types::model::ModelName;
use herm_types::paging::{Page, PageRequest};
use herm_types::{DeploymentId, ErrorCode, ThreadId, WorkId};

use crate::{App, Caller, Error};

/// A deployment to be made; every value is checked already.
#[derive(Clone, Debug)]
pub struct Create {
    pub customer_id: String,
    pub name: String,
    pub system_prompt: String,
    pub model: ModelName,
    pub sandbox: CreateSandbox,
    pub features: Features,
    pub metadata: BTreeMap<String, String>,
}

/// The sandbox asked for.
#[derive(Clone, Copy, Debug)]
pub struct CreateSandbox {
    pub enabled: bool,
    pub kind: SandboxType,
    pub persistent_filesystem: bool,
}

/// Which deployments are listed; what is `None` does not filter.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    pub customer_id: Option<String>,
    pub status: Option<DeploymentStatus>,
}

/// Makes a deployment with its default thread; it is ready at once, as its sandbox starts when it is needed.
pub async fn create(app: &App, caller: &Caller, request: Create) -> Result<Deployment, Error> {
    caller.require(Scope::DeploymentsWrite)?;
    caller.may_create_for(&request.customer_id)?;
    app.refuse_while_draining()?;
    let now = app.clock.now();
    let deployment = Deployment {
        deployment_id: app.ids.next(),
        account_id: caller.account_id(),
        customer_id: request.customer_id,
        name: request.name,
        model: request.model.to_string(),
        system_prompt: request.system_prompt,
        status: DeploymentStatus::Ready,
        default_thread_id: app.ids.next::<ThreadId>(),
        settings: DeploymentSettings {
            sandbox: choose_engine(app, request.sandbox)?,
            features: request.features,
            metadata: request.metadata,
        },
        created_at: now,
        updated_at: now,
    };
    app.store
        .transaction("create_deployment", move |tx| {
            Box::pin(async move {
                deployments::insert(tx, &deployment).await?;
                threads::insert(tx, deployment.default_thread_id, deployment.deployment_id, None).await?;
                let status = Event::DeploymentStatus { status: deployment.status.as_str() };
                tx.emit(deployment.deployment_id, status);
                Ok(deployment)
            })
        })
        .await
}

fn choose_engine(app: &App, asked: CreateSandbox) -> Result<SandboxSettings, herm_types::Error> {
    let engine = match (asked.enabled, asked.kind) {
        (false, _) => None,
        (true, SandboxType::Local) => Some(SandboxType::Local),
        (true, SandboxType::Docker) => Some(app.settings.docker_becomes.ok_or_else(|| {
            let message = "No Docker engine is available and this server does not use another sandbox in its \
                           place; ask for sandbox.type local, or set HERM_SANDBOX=local on the server.";
            herm_types::Error::new(ErrorCode::Unavailable, message)
        })?),
    };
    Ok(SandboxSettings {
        enabled: asked.enabled,
        kind: asked.kind,
        persistent_filesystem: asked.persistent_filesystem,
        engine,
    })
}

pub async fn get(app: &App, caller: &Caller, deployment_id: DeploymentId) -> Result<Deployment, Error> {
    caller.require(Scope::DeploymentsRead)?;
    let caller = caller.clone();
    app.store
        .read("get_deployment", move |tx| Box::pin(async move { caller.deployment(tx, deployment_id).await }))
        .await
}

/// A page of the deployments within the caller's reach, newest first.
pub async fn list(
    app: &App,
    caller: &Caller,
    filter: ListFilter,
    page: PageRequest,
) -> Result<Page<DeploymentItem>, Error> {
    caller.require(Scope::DeploymentsRead)?;
    let (account_id, limits, limit) = (caller.account_id(), caller.key().clone(), page.limit);
    // A key that is limited to one customer sees nothing of another, whatever it filters by.
    if let (Some(limit), Some(asked)) = (&limits.customer_id, &filter.customer_id)
        && limit != asked
    {
        return Ok(Page { data: Vec::new(), next_cursor: None });
    }
    let filter = deployments::Filter {
        deployment_id: limits.deployment_id,
        customer_id: limits.customer_id.or(filter.customer_id),
        status: filter.status,
    };
    let rows = app
        .store
        .read("list_deployments", move |tx| {
            Box::pin(async move { deployments::list(tx, account_id, &filter, &page).await })
        })
        .await?;
    Ok(Page::from_rows(rows, limit, |row| row.deployment_id.to_string()).map(|row| DeploymentItem {
        deployment_id: row.deployment_id,
        customer_id: row.customer_id,
        name: row.name,
        runtime: RUNTIME,
        status: row.status,
        model: row.model,
        created_at: row.created_at,
    }))
}

/// Deletes a deployment: from the commit on everything under it is gone for clients and workers; what is left
/// of it is torn down by a work item of the same transaction.
pub async fn delete(app: &App, caller: &Caller, deployment_id: DeploymentId) -> Result<(), Error> {
    caller.require(Scope::DeploymentsWrite)?;
    let (caller, work_id) = (caller.clone(), app.ids.next::<WorkId>());
    app.store
        .transaction("delete_deployment", move |tx| {
            Box::pin(async move {
                let deployment = caller.deployment(tx, deployment_id).await?;
                // Work items are locked before the event counter, as workers do it.
                queue::remove_of_deployment(tx, deployment_id).await?;
                tx.emit(deployment_id, Event::DeploymentStatus { status: "deleted" });
                if !deployments::delete(tx, &deployment).await? {
                    return Err(herm_types::Error::not_found("deployment", &deployment_id.to_string()).into());
                }
                let subject = deployment_id.to_string();
                Ok(queue::enqueue(tx, work_id, queue::Kind::Teardown, subject, deployment_id).await?)
            })
        })
        .await
}
