//! What a deployment needs before it can take work, where that takes long: an image that its engine has not, the files of a
//! snapshot. A worker gets it ready meanwhile.

use herm_store::{Tx, queue};
use herm_types::IdSource;
use herm_types::deployment::{Deployment, DeploymentStatus};

use crate::{Caller, Error, snapshots};

/// What one begins with that has all but what is told here.
pub(super) fn status(deployment: &Deployment, lacks_image: bool) -> DeploymentStatus {
    if lacks_image || deployment.restore_snapshot.is_some() {
        DeploymentStatus::Provisioning
    } else {
        DeploymentStatus::Ready
    }
}

/// Lets the worker get a deployment ready that is not.
pub(super) async fn begin(
    tx: &mut Tx,
    caller: &Caller,
    ids: &IdSource,
    deployment: &Deployment,
) -> Result<(), Error> {
    if deployment.status != DeploymentStatus::Provisioning {
        return Ok(());
    }
    snapshots::refuse_restore(tx, caller, deployment).await?;
    let (work_id, id) = (ids.next(), deployment.deployment_id);
    Ok(queue::enqueue(tx, work_id, queue::Kind::Provision, id.to_string(), id).await?)
}
