//! Deployments: create, get, list, update, retry and delete.

pub(crate) mod edit;
mod patch;
mod provisioning;

use herm_sandbox::workspace::Workspace;
use herm_store::deployments::{self, Transition};
use herm_store::skills::Skill;
use herm_store::{queue, skills, threads};
use herm_types::deployment::{Deployment, DeploymentItem, DeploymentSettings, DeploymentStatus};
use herm_types::event::Event;
use herm_types::key::Scope;
use herm_types::paging::{Page, PageRequest};
use herm_types::sandbox::{SandboxSettings, SandboxType};
use herm_types::skill::SkillItem;
use herm_types::snapshot::Snapshot;
use herm_types::{DeploymentId, ErrorCode, SnapshotId, ThreadId, WorkId};

use crate::idempotency::Reply;
use crate::mcp_servers::HeaderSealer;
use crate::skills::{WorkspaceState, describe, item, resolve_all, write_files};
use crate::{App, Caller, Error, engines, snapshots};
use edit::Draft;
pub use edit::{MAX_MCP_SERVERS, MAX_SKILLS};
pub use patch::{
    BudgetPatch, DeploymentPatch, FeaturesPatch, FieldPatch, MAX_METADATA_PAIRS, MapPatch, SandboxPatch,
    SteeringPatch,
};

/// The title of a new deployment's default thread. Clients can change it.
const DEFAULT_THREAD_TITLE: &str = "Default";

/// The properties of a deployment to be created. Each field is valid by itself, but combinations of fields
/// have not been checked yet.
#[derive(Clone, Debug)]
pub struct NewDeployment {
    pub customer_id: String,
    pub name: String,
    pub system_prompt: String,
    pub sandbox: NewSandbox,
    /// The snapshot whose files are restored into the new deployment's workspace.
    pub restore_snapshot: Option<SnapshotId>,
    /// All other properties, as a patch that is applied to the default settings.
    pub patch: DeploymentPatch,
}

/// The properties of a new deployment's sandbox that cannot be changed later.
#[derive(Clone, Copy, Debug)]
pub struct NewSandbox {
    pub kind: SandboxType,
    pub persistent_filesystem: bool,
}

/// Filters deployments by customer and status. A field that is `None` matches every deployment.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    pub customer_id: Option<String>,
    pub status: Option<DeploymentStatus>,
}

/// A deployment with the current state of its skills and its sandbox.
#[derive(Clone, Debug)]
pub struct DeploymentDetails {
    pub deployment: Deployment,
    pub skills: Vec<SkillItem>,
    /// `Some(true)` if each workspace's sandbox runs as a separate operating system user. `None` if the
    /// deployment has no sandbox.
    pub own_user: Option<bool>,
}

/// Creates a deployment with its default thread. Usually the deployment is ready at once, because its sandbox
/// starts only when it is needed. If an image must be pulled or a snapshot restored, the deployment is
/// provisioned first.
pub async fn create(
    app: &App,
    caller: &Caller,
    request: NewDeployment,
    reply: Reply<DeploymentDetails>,
) -> Result<DeploymentDetails, Error> {
    caller.require(Scope::DeploymentsWrite)?;
    caller.check_customer(&request.customer_id)?;
    app.refuse_while_draining()?;
    let now = app.clock.now();
    let NewDeployment { customer_id, name, system_prompt, sandbox, restore_snapshot, mut patch } = request;
    if let Some(snapshot_id) = restore_snapshot {
        // Check the snapshot first, because the steps below may take a long time and write files.
        snapshots::precheck_restore(app, caller, snapshot_id, &customer_id).await?;
    }
    let (new_skills, new_servers) = (patch.skills.take(), patch.mcp_servers.take());
    let mut deployment = Deployment {
        deployment_id: app.ids.next(),
        account_id: caller.account_id(),
        customer_id,
        name,
        model: app.settings.default_model.to_string(),
        system_prompt,
        status: DeploymentStatus::Ready,
        error: None,
        restore_snapshot,
        default_thread_id: app.ids.next::<ThreadId>(),
        version: 1,
        settings: DeploymentSettings::new(SandboxSettings {
            enabled: true,
            persistent_filesystem: sandbox.persistent_filesystem,
            ..SandboxSettings::new(sandbox.kind, None)
        }),
        created_at: now,
        updated_at: now,
    };
    patch.apply(&mut deployment, &app.settings.default_model)?;
    if deployment.settings.sandbox.enabled {
        let chosen = app.choose_engine(&deployment.settings.sandbox).await;
        engines::assign_engine(&mut deployment.settings.sandbox, &chosen)?;
    }
    let lacks_image = app.lacks_image(&deployment.settings.sandbox).await;
    if provisioning::is_needed(&deployment, lacks_image) {
        deployment.status = DeploymentStatus::Provisioning;
    }
    let deployment_id = deployment.deployment_id;
    let headers = HeaderSealer::new(app, deployment_id);
    deployment.settings.mcp_servers = headers.resolve_all(new_servers.unwrap_or_default(), &[], now)?;

    let dir = app.workspace_dir(deployment_id);
    let resolved = resolve_all(app, dir.clone(), WorkspaceState::New, new_skills.unwrap_or_default()).await?;
    let states: Vec<_> = resolved.iter().map(|skill| (skill.status, skill.description.clone())).collect();
    let written = write_files(dir.clone(), &resolved).await;
    let rows: Vec<_> = resolved.into_iter().map(|skill| skill.into_row(&[], &app.ids, now)).collect();
    let details = DeploymentDetails {
        skills: rows
            .iter()
            .cloned()
            .zip(states)
            .map(|(row, (status, text))| item(row, status, text))
            .collect(),
        own_user: app.own_user(&deployment.settings.sandbox).await,
        deployment: deployment.clone(),
    };
    let created = match written {
        Ok(()) => insert(app, caller, Draft { deployment, skills: rows }, details, reply).await,
        Err(error) => Err(error),
    };
    if created.is_err() {
        // The deployment was not created, so nothing else uses its workspace directory.
        let result = tokio::task::spawn_blocking(move || Workspace::destroy(&dir)).await;
        if !matches!(result, Ok(Ok(()))) {
            tracing::warn!(%deployment_id, ?result, "failed to remove the workspace of a deployment that could not be created");
        }
    }
    created
}

async fn insert(
    app: &App,
    caller: &Caller,
    draft: Draft,
    details: DeploymentDetails,
    reply: Reply<DeploymentDetails>,
) -> Result<DeploymentDetails, Error> {
    let (caller, ids) = (caller.clone(), app.ids.clone());
    app.transaction("create_deployment", reply, move |tx| {
        Box::pin(async move {
            edit::insert(tx, &draft).await?;
            let deployment = &draft.deployment;
            provisioning::enqueue(tx, &caller, &ids, deployment).await?;
            let title = Some(DEFAULT_THREAD_TITLE.to_owned());
            threads::insert(tx, deployment.default_thread_id, deployment.deployment_id, title).await?;
            tx.emit(deployment.deployment_id, Event::deployment_status(deployment.status.as_str()));
            Ok(details)
        })
    })
    .await
}

/// Updates a deployment. The changes take effect with the next run.
pub async fn update(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    mut patch: DeploymentPatch,
) -> Result<DeploymentDetails, Error> {
    caller.require(Scope::DeploymentsWrite)?;
    app.refuse_while_draining()?;
    // Check access before any skill is fetched or any file is written.
    let found = find(app, caller, deployment_id).await?;
    let chosen = app.choose_engine(&found.deployment.settings.sandbox).await;
    let dir = app.workspace_dir(deployment_id);
    let (new_skills, new_servers) = (patch.skills.take(), patch.mcp_servers.take());
    let resolved = match new_skills {
        Some(skills) => Some(resolve_all(app, dir.clone(), WorkspaceState::InUse, skills).await?),
        None => None,
    };
    write_files(dir.clone(), resolved.as_deref().unwrap_or_default()).await?;
    let (in_tx, caller, headers) = (app.clone(), caller.clone(), HeaderSealer::new(app, deployment_id));
    let draft = app
        .store
        .transaction("update_deployment", move |tx| {
            Box::pin(async move {
                let now = tx.now();
                let edit = move |draft: &mut Draft| {
                    patch.apply(&mut draft.deployment, &in_tx.settings.default_model)?;
                    let settings = &mut draft.deployment.settings;
                    engines::assign_engine(&mut settings.sandbox, &chosen)?;
                    if let Some(servers) = new_servers {
                        settings.mcp_servers = headers.resolve_all(servers, &settings.mcp_servers, now)?;
                    }
                    if let Some(resolved) = resolved {
                        let rows =
                            resolved.into_iter().map(|skill| skill.into_row(&draft.skills, &in_tx.ids, now));
                        draft.skills = rows.collect();
                    }
                    Ok(())
                };
                edit::edit(tx, &caller, deployment_id, edit).await.map(|(draft, ())| draft)
            })
        })
        .await?;
    Ok(details(app, draft.deployment, draft.skills).await)
}

/// Restarts the provisioning of a deployment whose status is `error`.
pub async fn retry(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    reply: Reply<DeploymentDetails>,
) -> Result<DeploymentDetails, Error> {
    caller.require(Scope::DeploymentsWrite)?;
    app.refuse_while_draining()?;
    // Read the skills before the transaction, because it stores the response, which contains the skills.
    let DeploymentDetails { deployment, skills, .. } = find(app, caller, deployment_id).await?;
    let mut sandbox = deployment.settings.sandbox;
    let chosen = app.choose_engine(&sandbox).await;
    // Do not fail here if no engine could be selected. The transaction below first checks the status of the
    // deployment and only then returns the selection error.
    let lacks_image =
        engines::assign_engine(&mut sandbox, &chosen).is_ok() && app.lacks_image(&sandbox).await;
    let own_user = app.own_user(&sandbox).await;
    let (caller, ids) = (caller.clone(), app.ids.clone());
    app.transaction("retry_deployment", reply, move |tx| {
        Box::pin(async move {
            let edit = move |draft: &mut Draft| {
                if draft.deployment.status != DeploymentStatus::Error {
                    let status = draft.deployment.status.as_str();
                    let message = format!(
                        "Only a deployment with the status `error` can be retried; this deployment has the status `{status}`."
                    );
                    return Err(herm_types::Error::new(ErrorCode::Conflict, message));
                }
                engines::assign_engine(&mut draft.deployment.settings.sandbox, &chosen)?;
                Ok(())
            };
            let (Draft { deployment, .. }, ()) = edit::edit(tx, &caller, deployment_id, edit).await?;
            let is_needed = provisioning::is_needed(&deployment, lacks_image);
            let transition = if is_needed { Transition::Provision } else { Transition::Recover };
            if !deployments::transition(tx, deployment_id, transition).await? {
                let corrupt = format!("deployment {deployment_id} has left the status `error` while it was locked");
                return Err(herm_store::Error::Corrupt(corrupt).into());
            }
            let deployment = caller.deployment(tx, deployment_id).await?;
            provisioning::enqueue(tx, &caller, &ids, &deployment).await?;
            Ok(DeploymentDetails { deployment, skills, own_user })
        })
    })
    .await
}

pub async fn get(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
) -> Result<DeploymentDetails, Error> {
    caller.require(Scope::DeploymentsRead)?;
    find(app, caller, deployment_id).await
}

async fn find(app: &App, caller: &Caller, deployment_id: DeploymentId) -> Result<DeploymentDetails, Error> {
    let caller = caller.clone();
    let (deployment, rows) = app
        .store
        .read("get_deployment", move |tx| {
            Box::pin(async move {
                let deployment = caller.deployment(tx, deployment_id).await?;
                Ok::<_, Error>((deployment, skills::of_deployment(tx, deployment_id).await?))
            })
        })
        .await?;
    Ok(details(app, deployment, rows).await)
}

async fn details(app: &App, deployment: Deployment, skills: Vec<Skill>) -> DeploymentDetails {
    DeploymentDetails {
        skills: describe(app.workspace_dir(deployment.deployment_id), skills).await,
        own_user: app.own_user(&deployment.settings.sandbox).await,
        deployment,
    }
}

/// Returns a page of the deployments that the caller may access, newest first.
pub async fn list(
    app: &App,
    caller: &Caller,
    filter: ListFilter,
    page: PageRequest,
) -> Result<Page<DeploymentItem>, Error> {
    caller.require(Scope::DeploymentsRead)?;
    let (account_id, limits, limit) = (caller.account_id(), caller.key().clone(), page.limit);
    // A key that is restricted to one customer sees no other customer's deployments, even if the filter names
    // another customer.
    if let (Some(limit), Some(requested)) = (&limits.customer_id, &filter.customer_id)
        && limit != requested
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
    Ok(Page::from_rows(rows, limit, |row| row.deployment_id.to_string()))
}

/// Selects whether the files of a deleted deployment are destroyed or archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRetention {
    Destroy,
    /// The files are archived as a snapshot, which a new deployment can restore.
    Retain,
}

/// Deletes a deployment. After the commit, clients and workers no longer find it. The transaction also
/// enqueues a work item that deletes the remaining data. Returns the snapshot if the files are retained.
pub async fn delete(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    files: FileRetention,
) -> Result<Option<Snapshot>, Error> {
    caller.require(Scope::DeploymentsWrite)?;
    let (caller, work_id) = (caller.clone(), app.ids.next::<WorkId>());
    let snapshot_id = (files == FileRetention::Retain).then(|| app.ids.next::<SnapshotId>());
    app.store
        .transaction("delete_deployment", move |tx| {
            Box::pin(async move {
                let deployment = caller.deployment(tx, deployment_id).await?;
                if snapshot_id.is_some() {
                    snapshots::require_persistent_filesystem(&deployment, "retain_filesystem")?;
                }
                // This call locks the deployment's work items. They must be locked before the deployment's
                // event counter: workers use this order too, and a different order could cause a deadlock.
                queue::remove_of_deployment(tx, deployment_id).await?;
                if !deployments::delete(tx, &deployment).await? {
                    return Err(herm_types::Error::not_found("deployment", &deployment_id.to_string()).into());
                }
                let snapshot = match snapshot_id {
                    Some(snapshot_id) => Some(snapshots::begin(tx, &deployment, snapshot_id).await?),
                    None => None,
                };
                let subject = deployment_id.to_string();
                queue::enqueue(tx, work_id, queue::Kind::Teardown, subject, deployment_id).await?;
                Ok(snapshot)
            })
        })
        .await
}
