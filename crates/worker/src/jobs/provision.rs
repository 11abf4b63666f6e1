//! Provisions a deployment: fetches its sandbox image and restores its snapshot into the workspace. The deployment
//! has the status `provisioning` until the result is recorded. If the server is killed before that, provisioning is
//! repeated.

use std::sync::Arc;

use herm_sandbox::workspace::archive::{ArchiveError, Contents};
use herm_sandbox::{Error as SandboxError, WorkspaceId, workspace};
use herm_store::deployments::{self, Transition};
use herm_store::{Error, failpoint, queue, snapshots};
use herm_types::deployment::{Deployment, DeploymentError, DeploymentStatus};
use herm_types::sandbox::SandboxSettings;
use herm_types::snapshot::Snapshot;

use crate::context::Context;
use crate::lease::HeldLease;
use crate::running::{RunningGuard, run_blocking};

/// The delay before provisioning is retried because the worker was already fetching the maximum number of images, in
/// milliseconds. It is multiplied by the number of attempts so far.
const FETCH_RETRY_MS: i64 = 500;
/// The maximum delay before provisioning is retried, in milliseconds. It applies if `FETCH_RETRY_MS` times the number
/// of attempts is longer.
const MAX_FETCH_RETRY_MS: i64 = 30_000;

/// The reason why provisioning has not made a deployment ready.
enum NotReady {
    /// The worker is already fetching the maximum number of images.
    FetchLimit,
    Failed(DeploymentError),
}

pub(crate) async fn provision(
    context: &Context,
    lease: &HeldLease,
    guard: &Arc<RunningGuard>,
) -> Result<(), Error> {
    let deployment_id = lease.deployment_id;
    let loaded = context
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
    let Some((deployment, snapshot)) = loaded else { return Err(Error::DeploymentDeleted) };
    let result = if deployment.status == DeploymentStatus::Provisioning {
        prepare(context, guard, &deployment, snapshot).await
    } else {
        Ok(())
    };
    failpoint::reach("provision", "record");
    match result {
        Ok(()) => finish(lease, deployment, None).await,
        Err(NotReady::Failed(error)) => finish(lease, deployment, Some(error)).await,
        Err(NotReady::FetchLimit) => postpone(context, lease).await,
    }
}

async fn prepare(
    context: &Context,
    guard: &Arc<RunningGuard>,
    deployment: &Deployment,
    snapshot: Option<Snapshot>,
) -> Result<(), NotReady> {
    failpoint::reach("provision", "image");
    ensure_image(context, deployment).await?;
    failpoint::reach("provision", "files");
    if deployment.restore_snapshot.is_some() {
        restore(context, guard, deployment, snapshot).await.map_err(NotReady::Failed)?;
    }
    Ok(())
}

fn deployment_error(code: &str, message: String) -> DeploymentError {
    DeploymentError { code: code.to_owned(), message }
}

async fn ensure_image(context: &Context, deployment: &Deployment) -> Result<(), NotReady> {
    let sandbox = &deployment.settings.sandbox;
    let (Some(engine), true) = (sandbox.engine, sandbox.enabled) else { return Ok(()) };
    let image = sandbox.image.as_deref();
    let result = match context.sandboxes.has_image(engine, image).await {
        Ok(true) => return Ok(()),
        Ok(false) => {
            let Ok(_permit) = context.image_fetches.try_acquire() else { return Err(NotReady::FetchLimit) };
            context.sandboxes.get_image(engine, image).await
        }
        Err(error) => Err(error),
    };
    result.map_err(|error| {
        tracing::warn!(
            deployment_id = %deployment.deployment_id,
            engine = engine.as_str(),
            image,
            error = &error as &dyn std::error::Error,
            "failed to get the sandbox image of a deployment"
        );
        NotReady::Failed(image_error(&error, sandbox))
    })
}

fn image_error(error: &SandboxError, sandbox: &SandboxSettings) -> DeploymentError {
    let SandboxError::NoImage { image, reason } = error else {
        return deployment_error(
            "engine_unavailable",
            format!(
                "Failed to look up the sandbox image: {error}. Fix the sandbox engine, then retry the deployment."
            ),
        );
    };
    let remedy = if sandbox.image.is_some() {
        "make the image available to the sandbox engine, or set another image in `sandbox.image`"
    } else {
        "build the image on the server from `images/sandbox`, or set another image in `HERM_SANDBOX_IMAGE` or `sandbox.image`"
    };
    deployment_error(
        "image_unavailable",
        format!(
            "The image {image:?} is not available: {reason}. To fix this, {remedy}, then retry the deployment."
        ),
    )
}

async fn restore(
    context: &Context,
    guard: &Arc<RunningGuard>,
    deployment: &Deployment,
    snapshot: Option<Snapshot>,
) -> Result<(), DeploymentError> {
    let not_found =
        || deployment_error("snapshot_not_found", "The snapshot to restore was deleted.".to_owned());
    let Some((snapshot, contents)) = snapshot.and_then(|snapshot| {
        let contents = snapshot.contents?;
        Some((snapshot, contents))
    }) else {
        return Err(not_found());
    };
    let expected =
        Contents { entries: contents.entries, bytes: contents.content_size, left_out: contents.left_out };
    let (snapshots, dir) = (
        context.snapshots.clone(),
        context.workspaces.dir_of(WorkspaceId::Deployment(deployment.deployment_id)),
    );
    let restored =
        run_blocking(guard, move |stop| snapshots.restore(snapshot.snapshot_id, &dir, expected, stop)).await;
    let Err(error) = restored else { return Ok(()) };
    tracing::error!(
        deployment_id = %deployment.deployment_id,
        snapshot_id = %snapshot.snapshot_id,
        error = &error as &dyn std::error::Error,
        "failed to restore a snapshot into a deployment's workspace"
    );
    Err(match error {
        ArchiveError::Files(workspace::Error::NotFound) => not_found(),
        ArchiveError::Damaged(_) => {
            deployment_error("snapshot_damaged", format!("Failed to restore the snapshot: {error}."))
        }
        ArchiveError::Files(workspace::Error::NoSpace) => deployment_error(
            "no_space",
            "The server's disk has no space for the snapshot's files. Free some space, then retry the deployment."
                .to_owned(),
        ),
        ArchiveError::PathConflict(_) => {
            deployment_error("path_conflict", format!("{error}. Move the existing file away, then retry the deployment."))
        }
        other => deployment_error("failed", format!("Failed to restore the snapshot: {other}.")),
    })
}

/// Records the result of provisioning: status `error` if `error` is set, otherwise `ready`. If the sandbox was enabled
/// or disabled in the meantime, or its image was changed, nothing is recorded and provisioning is repeated.
async fn finish(
    lease: &HeldLease,
    provisioned: Deployment,
    error: Option<DeploymentError>,
) -> Result<(), Error> {
    lease
        .transaction("end_provisioning", move |tx, lease| {
            Box::pin(async move {
                let current = deployments::find_and_lock(tx, lease.deployment_id).await?;
                let has_changed =
                    current.is_some_and(|current| requirements(&current) != requirements(&provisioned));
                if has_changed {
                    return queue::postpone(tx, &lease, 0).await;
                }
                let transition = error.map_or(Transition::Ready, Transition::Fail);
                deployments::transition(tx, lease.deployment_id, transition).await?;
                queue::complete(tx, &lease).await
            })
        })
        .await
}

/// Returns the two settings that affect provisioning and that clients can change: true if the sandbox is enabled, and
/// the sandbox's image.
fn requirements(deployment: &Deployment) -> (bool, Option<&str>) {
    let sandbox = &deployment.settings.sandbox;
    (sandbox.enabled, sandbox.image.as_deref())
}

async fn postpone(context: &Context, lease: &HeldLease) -> Result<(), Error> {
    let delay = lease.attempts.saturating_mul(FETCH_RETRY_MS).min(MAX_FETCH_RETRY_MS);
    let delay = context.jittered(delay);
    lease
        .transaction("postpone_provisioning", move |tx, lease| {
            Box::pin(async move { queue::postpone(tx, &lease, delay).await })
        })
        .await
}
