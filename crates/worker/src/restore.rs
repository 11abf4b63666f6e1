//! Restoring the snapshot that a new deployment begins with. Until that has ended the deployment is `provisioning`; killed
//! anywhere, it is done again.

use std::sync::Arc;

use herm_sandbox::workspace::archive::{ArchiveError, Contents};
use herm_sandbox::{WorkspaceId, workspace};
use herm_store::queue::{self, Lease};
use herm_store::{Error, deployments, fault, snapshots};
use herm_types::deployment::{Deployment, DeploymentError, DeploymentStatus};
use herm_types::event::Event;
use herm_types::snapshot::Snapshot;

use crate::in_hand::{InHand, blocking};
use crate::worker::Context;

pub(crate) async fn restore(context: &Context, lease: &Lease, in_hand: &Arc<InHand>) -> Result<(), Error> {
    let deployment_id = lease.deployment_id;
    let found = context
        .store
        .read("load_restore", move |tx| {
            Box::pin(async move {
                let deployment = deployments::find(tx, deployment_id).await?;
                let snapshot = match deployment.as_ref().and_then(|deployment| deployment.restore_snapshot) {
                    Some(snapshot_id) => snapshots::find(tx, snapshot_id).await?,
                    None => None,
                };
                Ok::<_, Error>((deployment, snapshot))
            })
        })
        .await?;
    fault::reach("restore", "files");
    let error = match found {
        (Some(deployment), snapshot) if deployment.status == DeploymentStatus::Provisioning => {
            place(context, in_hand, &deployment, snapshot).await.err()
        }
        _ => None,
    };
    fault::reach("restore", "record");
    end(context, lease, error).await
}

async fn place(
    context: &Context,
    in_hand: &Arc<InHand>,
    deployment: &Deployment,
    snapshot: Option<Snapshot>,
) -> Result<(), DeploymentError> {
    let told = |code: &str, message: String| DeploymentError { code: code.to_owned(), message };
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

async fn end(context: &Context, lease: &Lease, error: Option<DeploymentError>) -> Result<(), Error> {
    let held = lease.clone();
    context
        .store
        .transaction("end_provisioning", move |tx| {
            Box::pin(async move {
                queue::hold(tx, &held).await?;
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
