//! Tearing a deleted deployment down: its runs, its sandbox, its files, its rows. Each part may be done again, so
//! that a crash between any two is made good by the next claim.

use herm_sandbox::workspace::Workspace;
use herm_store::queue::{self, Lease};
use herm_store::{Error, deployments, fault};

use crate::worker::Context;

pub(crate) async fn tear_down(context: &Context, lease: &Lease) -> Result<(), Error> {
    let deployment_id = lease.deployment_id;
    context.running.cancel_of_deployment(deployment_id, lease.work_id).await;
    fault::reach("teardown", "sandbox");
    context.keeper.retire(deployment_id).await.map_err(|error| Error::Io(std::io::Error::other(error)))?;
    fault::reach("teardown", "workspace");
    let dir = context.workspace_dir(deployment_id);
    let destroyed = tokio::task::spawn_blocking(move || Workspace::destroy(&dir)).await;
    destroyed
        .map_err(|error| Error::Io(std::io::Error::other(error)))?
        .map_err(|error| Error::Io(std::io::Error::other(error)))?;
    fault::reach("teardown", "rows");
    loop {
        let held = lease.clone();
        let is_done = context
            .store
            .transaction("erase_deployment", move |tx| {
                Box::pin(async move {
                    queue::hold(tx, &held).await?;
                    let is_done = deployments::erase_contents(tx, held.deployment_id).await?;
                    if is_done {
                        queue::complete(tx, &held).await?;
                    }
                    Ok::<_, Error>(is_done)
                })
            })
            .await?;
        if is_done {
            return Ok(());
        }
    }
}
