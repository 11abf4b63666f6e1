//! Drives one run in a loop: loads the run's state, decides on the next step and executes the step.

mod cancel;
mod fallback;
mod load;
mod message_stream;
mod model_call;
mod steering;
mod step;
mod tool_calls;
mod writes;

use herm_agent::{Decision, decide};
use herm_store::queue;
use herm_store::{Error, failpoint};
use tokio::sync::Notify;

use crate::context::Context;
use crate::lease::HeldLease;
use load::LoadedRun;
use step::{Progress, Step};

/// Drives a run until it ends or has to wait. `changed` is notified when another task has changed the run, for example
/// by requesting its cancellation. The run is loaded once; after each step, only what has changed is read.
pub(crate) async fn drive(context: &Context, lease: &HeldLease, changed: &Notify) -> Result<(), Error> {
    let mut next = load::load(context, lease).await?;
    while let Some(loaded) = next {
        failpoint::reach("run", "loaded");
        if loaded.run.cancel_requested_at.is_some() {
            return cancel::cancel_run(context, lease).await;
        }
        tokio::select! {
            progress = advance(context, lease, &loaded) => if let Progress::Released = progress? {
                return Ok(());
            },
            requested = cancel::wait_until_requested(context, &loaded.run, changed) => requested?,
        }
        next = load::refresh(context, loaded).await?;
    }
    complete_item(lease).await
}

async fn advance(context: &Context, lease: &HeldLease, loaded: &LoadedRun) -> Result<Progress, Error> {
    let step = |step_no: i64| Step { context, lease, loaded, step_no };
    let last = step(loaded.state.steps.last().map_or(0, |step| step.step_no));
    match decide(&loaded.state) {
        Decision::CallModel { step_no, turns } => {
            if loaded.deployment.settings.sandbox.enabled {
                context.sandbox_pool.warm(loaded.sandbox());
            }
            model_call::execute(step(step_no), turns).await
        }
        Decision::RunTools { step_no, calls } => {
            tool_calls::execute(step(step_no), calls).await?;
            Ok(Progress::Continue)
        }
        Decision::Wait => steering::wait_for_person(last).await,
        Decision::Finish => writes::finish(last).await,
        Decision::Fail(error) => {
            writes::fail(last, error, Vec::new()).await?;
            Ok(Progress::Released)
        }
    }
}

/// Completes the work item of a run that has already ended or was deleted.
async fn complete_item(lease: &HeldLease) -> Result<(), Error> {
    lease
        .transaction("forget_work", move |tx, lease| {
            Box::pin(async move { queue::complete(tx, &lease).await })
        })
        .await
}
