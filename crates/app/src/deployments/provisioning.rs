//! Provisioning of a deployment by a worker: the worker pulls the image if the sandbox engine lacks it, and
//! restores the snapshot if the deployment was created from one.

use herm_store::{Tx, queue};
use herm_types::IdSource;
use herm_types::deployment::{Deployment, DeploymentStatus};

use crate::{Caller, Error, snapshots};

/// Returns true if a new or retried deployment must be provisioned: an image pulled or a snapshot restored.
pub(super) fn is_needed(deployment: &Deployment, lacks_image: bool) -> bool {
    lacks_image || deployment.restore_snapshot.is_some()
}

/// Enqueues a work item that provisions the deployment, if its status is `Provisioning`. Fails if the
/// deployment names a snapshot that it may not restore.
pub(super) async fn enqueue(
    tx: &mut Tx,
    caller: &Caller,
    ids: &IdSource,
    deployment: &Deployment,
) -> Result<(), Error> {
    if deployment.status != DeploymentStatus::Provisioning {
        return Ok(());
    }
    snapshots::check_restore(tx, caller, deployment).await?;
    let (work_id, id) = (ids.next(), deployment.deployment_id);
    Ok(queue::enqueue(tx, work_id, queue::Kind::Provision, id.to_string(), id).await?)
}
