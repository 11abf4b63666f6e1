//! Getting ready what a new deployment needs: its image, then the files of the snapshot that it begins with. Until that
//! has ended the deployment is `provisioning`; killed anywhere, it is done again.

use std::sync::Arc;

use herm_sandbox::workspace::archive::{ArchiveError, Contents};
use herm_sandbox::{Error as SandboxError, WorkspaceId, workspace};
use herm_store::queue::{self, Lease};
use herm_store::{Error, deployments, fault, snapshots};
use herm_types::deployment::{Deployment, DeploymentError, DeploymentStatus};
use herm_types::event::Event;
use herm_types::sandbox::SandboxSettings;
use herm_types::snapshot::Snapshot;

use crate::in_hand::{InHand, blocking};
use crate::worker::Context;

/// Images that one worker fetches at once: a registry that answers nobody holds up others' images, and no run.
pub(crate) const MAX_FETCHES: usize = 4;
/// Before it is seen again whether an image can be fetched, when others are, in milliseconds; longer each time.
const WAIT_MS: i64 = 500;
/// The most of it.
const MAX_WAIT_MS: i64 = 30_000;

/// Why a deployment cannot be got ready yet, or at all.
enum Unready {
    /// Others' images are being fetched.
    Waits,
    Failed(DeploymentError),
}

pub(crate) async fn provision(context: &Context, lease: &Lease, in_hand: &Arc<InHand>) -> Result<(), Error> {
    let deployment_id = lease.deployment_id;
    let found = context
        .store
        .read("load_provisioning", move |tx| {
            Box::pin(async move {
                let deployment = deployments::find(tx, deployment_id).await?;
                let snapshot = match deployment.as_ref().and_then(|deployment| deployment.restore_snapshot) {
                    Some(snapshot_id) => snapshots::find(tx, snapshot_id).await?,
                    None => None,
                };
                Ok::<_, Error>(deployment.map(|deployment| (deployment, snapshot)))
            })
        })
        .await?;
    let Some((deployment, snapshot)) = found else { return Err(Error::DeploymentDeleted) };
    let ended = if deployment.status == DeploymentStatus::Provisioning {
        get_ready(context, in_hand, &deployment, snapshot).await
    } else {
        Ok(())
    };
    fault::reach("provision", "record");
    match ended {
        Ok(()) => end(context, lease, deployment, None).await,
        Err(Unready::Failed(error)) => end(context, lease, deployment, Some(error)).await,
        Err(Unready::Waits) => wait(context, lease).await,
    }
}

async fn get_ready(
    context: &Context,
    in_hand: &Arc<InHand>,
    deployment: &Deployment,
    snapshot: Option<Snapshot>,
) -> Result<(), Unready> {
    fault::reach("provision", "image");
    get_image(context, deployment).await?;
    fault::reach("provision", "files");
    if deployment.restore_snapshot.is_some() {
        restore(context, in_hand, deployment, snapshot).await.map_err(Unready::Failed)?;
    }
    Ok(())
}

fn told(code: &str, message: String) -> DeploymentError {
    DeploymentError { code: code.to_owned(), message }
}

async fn get_image(context: &Context, deployment: &Deployment) -> Result<(), Unready> {
    let sandbox = &deployment.settings.sandbox;
    let (Some(engine), true) = (sandbox.engine, sandbox.enabled) else { return Ok(()) };
    let image = sandbox.image.as_deref();
    let got = match context.sandboxes.has_image(engine, image).await {
        Ok(true) => return Ok(()),
        Ok(false) => {
            let Ok(_one_of_few) = context.fetches.try_acquire() else { return Err(Unready::Waits) };
            context.sandboxes.get_image(engine, image).await
        }
        Err(error) => Err(error),
    };
    got.map_err(|error| {
        tracing::warn!(deployment_id = %deployment.deployment_id, error = &error as &dyn std::error::Error,
            "a deployment's image could not be had");
        Unready::Failed(why_no_image(&error, sandbox))
    })
}

fn why_no_image(error: &SandboxError, sandbox: &SandboxSettings) -> DeploymentError {
    let SandboxError::NoImage { image, reason } = error else {
        return told(
            "engine_unavailable",
            format!("The sandbox's image cannot be looked for: {error}; then retry."),
        );
    };
    let way_out = if sandbox.image.is_some() {
        "give the engine the image, or name another in sandbox.image"
    } else {
        "build it on the server from images/sandbox, or name another in HERM_SANDBOX_IMAGE or sandbox.image"
    };
    told("image_unavailable", format!("The image {image:?} cannot be had ({reason}): {way_out}; then retry."))
}

async fn restore(
    context: &Context,
    in_hand: &Arc<InHand>,
    deployment: &Deployment,
    snapshot: Option<Snapshot>,
) -> Result<(), DeploymentError> {
    let gone = || told("snapshot_not_found", "The snapshot to restore was erased.".to_owned());
    let Some((snapshot, contents)) = snapshot.and_then(|snapshot| {
        let contents = snapshot.contents?;
        Some((snapshot, contents))
    }) else {
        return Err(gone());
    };
    let expected =
        Contents { entries: contents.entries, bytes: contents.content_size, left_out: contents.left_out };
    let (kept, dir) = (
        context.snapshots.clone(),
        context.workspaces.dir_of(WorkspaceId::Deployment(deployment.deployment_id)),
    );
    let restored =
        blocking(in_hand, move |stop| kept.restore(snapshot.snapshot_id, &dir, expected, stop)).await;
    let Err(error) = restored else { return Ok(()) };
    tracing::error!(deployment_id = %deployment.deployment_id, error = &error as &dyn std::error::Error,
        "a snapshot could not be restored");
    Err(match error {
        ArchiveError::Files(workspace::Error::NotFound) => gone(),
        ArchiveError::Damaged(_) => {
            told("snapshot_damaged", format!("The snapshot cannot be restored: {error}."))
        }
        ArchiveError::Files(workspace::Error::NoSpace) => told(
            "no_space",
            "The server's disk has no room for the snapshot's files; retry when there is.".to_owned(),
        ),
        ArchiveError::InTheWay(_) => told("in_the_way", format!("{error}; move it away, then retry.")),
        other => told("failed", format!("The snapshot could not be restored: {other}.")),
    })
}

/// Records how it ended. If the deployment asks for another image since, nothing has: it is done again.
async fn end(
    context: &Context,
    lease: &Lease,
    seen: Deployment,
    error: Option<DeploymentError>,
) -> Result<(), Error> {
    let held = lease.clone();
    context
        .store
        .transaction("end_provisioning", move |tx| {
            Box::pin(async move {
                queue::hold(tx, &held).await?;
                let now = deployments::find_and_lock(tx, held.deployment_id).await?;
                let is_other = now.is_some_and(|now| needs_of(&now) != needs_of(&seen));
                if is_other {
                    return queue::postpone(tx, &held, 0).await;
                }
                if deployments::end_provisioning(tx, held.deployment_id, error.as_ref()).await? {
                    let status =
                        if error.is_some() { DeploymentStatus::Error } else { DeploymentStatus::Ready };
                    let event = Event::DeploymentStatus { status: status.as_str(), error };
                    tx.emit(held.deployment_id, event);
                }
                queue::complete(tx, &held).await
            })
        })
        .await
}

/// What of a deployment decides what is to be got ready, as far as it may change.
fn needs_of(deployment: &Deployment) -> (bool, Option<&str>) {
    let sandbox = &deployment.settings.sandbox;
    (sandbox.enabled, sandbox.image.as_deref())
}

async fn wait(context: &Context, lease: &Lease) -> Result<(), Error> {
    let (held, delay) = (lease.clone(), lease.attempts.saturating_mul(WAIT_MS).min(MAX_WAIT_MS));
    let delay = context.jittered(delay);
    context
        .store
        .transaction("postpone_provisioning", move |tx| {
            Box::pin(async move { queue::postpone(tx, &held, delay).await })
        })
        .await
}
