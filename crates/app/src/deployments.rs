//! Deployments: made, read, deleted.

pub(crate) mod change;
mod changes;
mod provisioning;

use herm_sandbox::workspace::Workspace;
use herm_store::skills::Skill;
use herm_store::{deployments, queue, skills, threads};
use herm_types::deployment::{Deployment, DeploymentItem, DeploymentSettings, DeploymentStatus};
use herm_types::event::Event;
use herm_types::key::Scope;
use herm_types::paging::{Page, PageRequest};
use herm_types::sandbox::{SandboxSettings, SandboxType};
use herm_types::skill::SkillItem;
use herm_types::snapshot::Snapshot;
use herm_types::{DeploymentId, ErrorCode, SnapshotId, ThreadId, WorkId};

use crate::idempotency::Reply;
use crate::mcp_servers::Headers;
use crate::skills::{Workplace, describe, gather, item, write_files};
use crate::{App, Caller, Error, engines, snapshots};
use change::Draft;
pub use changes::{
    BudgetChanges, Change, Changes, FeatureChanges, MAX_METADATA_PAIRS, MapChange, SandboxChanges,
    SteeringChanges,
};

/// A deployment to be made; every value is checked already for what it is alone.
#[derive(Clone, Debug)]
pub struct Create {
    pub customer_id: String,
    pub name: String,
    pub system_prompt: String,
    pub sandbox: CreateSandbox,
    /// The files that it begins with.
    pub restore_snapshot: Option<SnapshotId>,
    /// What else is said, against the defaults.
    pub changes: Changes,
}

/// What of a sandbox is chosen once.
#[derive(Clone, Copy, Debug)]
pub struct CreateSandbox {
    pub kind: SandboxType,
    pub persistent_filesystem: bool,
}

/// Which deployments are listed; what is `None` does not filter.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    pub customer_id: Option<String>,
    pub status: Option<DeploymentStatus>,
}

/// A deployment with its skills, and with what its sandbox is, as they are at this moment.
#[derive(Clone, Debug)]
pub struct Described {
    pub deployment: Deployment,
    pub skills: Vec<SkillItem>,
    /// Whether its sandbox has a user of its own to the host's kernel; `None` without a sandbox.
    pub own_user: Option<bool>,
}

/// Makes a deployment with its default thread; it is ready at once, as its sandbox starts when it is needed. One whose
/// image is to be fetched, or that begins with a snapshot's files, is ready when they are there.
pub async fn create(
    app: &App,
    caller: &Caller,
    request: Create,
    reply: Reply<Described>,
) -> Result<Described, Error> {
    caller.require(Scope::DeploymentsWrite)?;
    caller.may_create_for(&request.customer_id)?;
    app.refuse_while_draining()?;
    let now = app.clock.now();
    let Create { customer_id, name, system_prompt, sandbox, restore_snapshot, mut changes } = request;
    if let Some(snapshot_id) = restore_snapshot {
        // What follows may take long, and writes files.
        snapshots::check_restore(app, caller, snapshot_id, &customer_id).await?;
    }
    let (given_skills, given_servers) = (changes.skills.take(), changes.mcp_servers.take());
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
    changes.apply(&mut deployment, &app.settings.default_model)?;
    if deployment.settings.sandbox.enabled {
        let chosen = app.choose_engine(&deployment.settings.sandbox).await;
        engines::settle(&mut deployment.settings.sandbox, &chosen)?;
    }
    let lacks_image = app.lacks_image(&deployment.settings.sandbox).await;
    deployment.status = provisioning::status(&deployment, lacks_image);
    let headers = Headers::new(app, deployment.deployment_id);
    deployment.settings.mcp_servers = headers.take_all(given_servers.unwrap_or_default(), &[], now)?;

    let dir = app.workspace_dir(deployment.deployment_id);
    let gathered = gather(app, dir.clone(), Workplace::New, given_skills.unwrap_or_default()).await?;
    let looked: Vec<_> = gathered.iter().map(|skill| (skill.status, skill.description.clone())).collect();
    let written = write_files(dir.clone(), &gathered).await;
    let rows: Vec<_> = gathered.into_iter().map(|skill| skill.into_row(&[], &app.ids, now)).collect();
    let described = Described {
        skills: rows
            .iter()
            .cloned()
            .zip(looked)
            .map(|(row, (status, text))| item(row, status, text))
            .collect(),
        own_user: app.own_user(&deployment.settings.sandbox).await,
        deployment: deployment.clone(),
    };
    let made = match written {
        Ok(()) => insert(app, caller, Draft { deployment, skills: rows }, described, reply).await,
        Err(error) => Err(error),
    };
    if made.is_err() {
        // Nobody else knows of this workspace.
        let removed = tokio::task::spawn_blocking(move || Workspace::destroy(&dir)).await;
        if !matches!(removed, Ok(Ok(()))) {
            tracing::warn!(?removed, "the workspace of a deployment that was not made is left");
        }
    }
    made
}

async fn insert(
    app: &App,
    caller: &Caller,
    draft: Draft,
    described: Described,
    reply: Reply<Described>,
) -> Result<Described, Error> {
    let (caller, ids) = (caller.clone(), app.ids.clone());
    app.transaction("create_deployment", reply, move |tx| {
        Box::pin(async move {
            change::insert(tx, &draft).await?;
            let deployment = &draft.deployment;
            provisioning::begin(tx, &caller, &ids, deployment).await?;
            threads::insert(tx, deployment.default_thread_id, deployment.deployment_id, None).await?;
            tx.emit(deployment.deployment_id, Event::deployment_status(deployment.status.as_str()));
            Ok(described)
        })
    })
    .await
}

/// Changes a deployment, from its agent's next run on.
pub async fn update(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    mut changes: Changes,
) -> Result<Described, Error> {
    caller.require(Scope::DeploymentsWrite)?;
    app.refuse_while_draining()?;
    // Nothing is fetched or written for who may not.
    let found = find(app, caller, deployment_id).await?;
    let chosen = app.choose_engine(&found.deployment.settings.sandbox).await;
    let dir = app.workspace_dir(deployment_id);
    let (given_skills, given_servers) = (changes.skills.take(), changes.mcp_servers.take());
    let gathered = match given_skills {
        Some(given) => Some(gather(app, dir.clone(), Workplace::Live, given).await?),
        None => None,
    };
    write_files(dir.clone(), gathered.as_deref().unwrap_or_default()).await?;
    let (in_tx, caller, headers) = (app.clone(), caller.clone(), Headers::new(app, deployment_id));
    let draft = app
        .store
        .transaction("update_deployment", move |tx| {
            Box::pin(async move {
                let now = tx.now();
                let edit = move |draft: &mut Draft| {
                    changes.apply(&mut draft.deployment, &in_tx.settings.default_model)?;
                    let settings = &mut draft.deployment.settings;
                    engines::settle(&mut settings.sandbox, &chosen)?;
                    if let Some(given) = given_servers {
                        settings.mcp_servers = headers.take_all(given, &settings.mcp_servers, now)?;
                    }
                    if let Some(gathered) = gathered {
                        let rows =
                            gathered.into_iter().map(|skill| skill.into_row(&draft.skills, &in_tx.ids, now));
                        draft.skills = rows.collect();
                    }
                    Ok(())
                };
                change::make(tx, &caller, deployment_id, edit).await.map(|(draft, ())| draft)
            })
        })
        .await?;
    Ok(describe_all(app, draft.deployment, draft.skills).await)
}

/// Provisions a deployment again whose provisioning failed.
pub async fn retry(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    reply: Reply<Described>,
) -> Result<Described, Error> {
    caller.require(Scope::DeploymentsWrite)?;
    app.refuse_while_draining()?;
    // The files of skills are looked at before, as the answer commits with the change.
    let Described { deployment, skills, .. } = find(app, caller, deployment_id).await?;
    let mut sandbox = deployment.settings.sandbox;
    let chosen = app.choose_engine(&sandbox).await;
    // What is wrong with it is said below, if it still is to be provisioned.
    let lacks_image = engines::settle(&mut sandbox, &chosen).is_ok() && app.lacks_image(&sandbox).await;
    let own_user = app.own_user(&sandbox).await;
    let (caller, ids) = (caller.clone(), app.ids.clone());
    app.transaction("retry_deployment", reply, move |tx| {
        Box::pin(async move {
            let edit = move |draft: &mut Draft| {
                if draft.deployment.status != DeploymentStatus::Error {
                    let status = draft.deployment.status.as_str();
                    let message =
                        format!("The deployment is {status}; only one in error is provisioned again.");
                    return Err(herm_types::Error::new(ErrorCode::Conflict, message));
                }
                engines::settle(&mut draft.deployment.settings.sandbox, &chosen)?;
                draft.deployment.error = None;
                draft.deployment.status = provisioning::status(&draft.deployment, lacks_image);
                Ok(())
            };
            let (draft, ()) = change::make(tx, &caller, deployment_id, edit).await?;
            provisioning::begin(tx, &caller, &ids, &draft.deployment).await?;
            tx.emit(deployment_id, Event::deployment_status(draft.deployment.status.as_str()));
            Ok(Described { deployment: draft.deployment, skills, own_user })
        })
    })
    .await
}

pub async fn get(app: &App, caller: &Caller, deployment_id: DeploymentId) -> Result<Described, Error> {
    caller.require(Scope::DeploymentsRead)?;
    find(app, caller, deployment_id).await
}

async fn find(app: &App, caller: &Caller, deployment_id: DeploymentId) -> Result<Described, Error> {
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
    Ok(describe_all(app, deployment, rows).await)
}

async fn describe_all(app: &App, deployment: Deployment, skills: Vec<Skill>) -> Described {
    Described {
        skills: describe(app.workspace_dir(deployment.deployment_id), skills).await,
        own_user: app.own_user(&deployment.settings.sandbox).await,
        deployment,
    }
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
    Ok(Page::from_rows(rows, limit, |row| row.deployment_id.to_string()))
}

/// What becomes of a deleted deployment's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    Destroy,
    /// They are kept as a snapshot.
    Retain,
}

/// Deletes a deployment: from the commit on everything under it is gone for clients and workers; what is left
/// of it is torn down by a work item of the same transaction. Gives the snapshot that its files become.
pub async fn delete(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    files: Files,
) -> Result<Option<Snapshot>, Error> {
    caller.require(Scope::DeploymentsWrite)?;
    let (caller, work_id) = (caller.clone(), app.ids.next::<WorkId>());
    let snapshot_id = (files == Files::Retain).then(|| app.ids.next::<SnapshotId>());
    app.store
        .transaction("delete_deployment", move |tx| {
            Box::pin(async move {
                let deployment = caller.deployment(tx, deployment_id).await?;
                if snapshot_id.is_some() {
                    snapshots::refuse_without_files(&deployment, "retain_filesystem")?;
                }
                // Work items are locked before the event counter, as workers do it.
                queue::remove_of_deployment(tx, deployment_id).await?;
                tx.emit(deployment_id, Event::deployment_status("deleted"));
                if !deployments::delete(tx, &deployment).await? {
                    return Err(herm_types::Error::not_found("deployment", &deployment_id.to_string()).into());
                }
                let kept = match snapshot_id {
                    Some(snapshot_id) => Some(snapshots::begin(tx, &deployment, snapshot_id).await?),
                    None => None,
                };
                let subject = deployment_id.to_string();
                queue::enqueue(tx, work_id, queue::Kind::Teardown, subject, deployment_id).await?;
                Ok(kept)
            })
        })
        .await
}
