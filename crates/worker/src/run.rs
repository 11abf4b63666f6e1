//! Driving one run: read what is known of it, decide, carry that out, and again.

mod load;
mod model_call;
mod tool_calls;
mod voice;
mod writes;

use herm_agent::{Decision, decide};
use herm_store::queue::{self, Lease};
use herm_store::{Error, fault};

use crate::worker::Context;
use load::Loaded;

/// What is left to do after a step.
enum Progress {
    /// The run goes on.
    GoesOn,
    /// It ended, or waits as a row of the queue.
    LetGo,
}

/// Drives a run until it ends or has to wait.
pub(crate) async fn drive(context: &Context, lease: &Lease) -> Result<(), Error> {
    loop {
        let Some(loaded) = load::load(context, lease).await? else {
            return forget(context, lease).await;
        };
        fault::reach("run", "loaded");
        if let Progress::LetGo = advance(context, lease, &loaded).await? {
            return Ok(());
        }
    }
}

async fn advance(context: &Context, lease: &Lease, loaded: &Loaded) -> Result<Progress, Error> {
    match decide(&loaded.state) {
        Decision::CallModel { step_no, turns } => {
            if loaded.deployment.settings.sandbox.enabled {
                context.keeper.warm(loaded.deployment.deployment_id, loaded.workspace_dir.clone());
            }
            model_call::make(context, lease, loaded, step_no, turns).await
        }
        Decision::RunTools { step_no, calls } => {
            tool_calls::make(context, lease, loaded, step_no, &calls).await?;
            Ok(Progress::GoesOn)
        }
        Decision::Finish => writes::finish(context, lease, loaded).await,
        Decision::Fail(error) => {
            writes::fail(context, lease, loaded, error, Vec::new()).await?;
            Ok(Progress::LetGo)
        }
    }
}

/// Drops the work item of a run that has ended already, or is gone.
async fn forget(context: &Context, lease: &Lease) -> Result<(), Error> {
    let held = lease.clone();
    context
        .store
        .transaction("forget_work", move |tx| Box::pin(async move { queue::complete(tx, &held).await }))
        .await
}
