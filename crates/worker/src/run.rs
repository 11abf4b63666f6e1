//! Driving one run: read what is known of it, decide, carry that out, and again.

mod cancel;
mod fallback;
mod load;
mod model_call;
mod steering;
mod tool_calls;
mod voice;
mod writes;

use herm_agent::{Decision, decide};
use herm_store::journal::Position;
use herm_store::queue::{self, Lease};
use herm_store::{Error, fault};
use tokio::sync::Notify;

use crate::worker::Context;
use load::Loaded;

/// What is left to do after a step.
enum Progress {
    /// The run goes on.
    GoesOn,
    /// It ended, or waits as a row of the queue.
    LetGo,
}

/// Drives a run until it ends or has to wait. `look`: somebody has changed it.
pub(crate) async fn drive(context: &Context, lease: &Lease, look: &Notify) -> Result<(), Error> {
    loop {
        let Some(loaded) = load::load(context, lease).await? else {
            return forget(context, lease).await;
        };
        fault::reach("run", "loaded");
        if loaded.run.cancel_requested_at.is_some() {
            return cancel::wind_up(context, lease).await;
        }
        tokio::select! {
            progress = advance(context, lease, &loaded) => if let Progress::LetGo = progress? {
                return Ok(());
            },
            requested = cancel::requested(context, &loaded.run, look) => requested?,
        }
    }
}

async fn advance(context: &Context, lease: &Lease, loaded: &Loaded) -> Result<Progress, Error> {
    match decide(&loaded.state) {
        Decision::CallModel { step_no, turns } => {
            if loaded.deployment.settings.sandbox.enabled {
                context.keeper.warm(loaded.sandbox());
            }
            model_call::make(context, lease, loaded, step_no, turns).await
        }
        Decision::RunTools { step_no, calls } => {
            tool_calls::make(context, lease, loaded, step_no, &calls).await?;
            Ok(Progress::GoesOn)
        }
        Decision::Wait => steering::wait(context, lease, loaded).await,
        Decision::Finish => writes::finish(context, lease, loaded).await,
        Decision::Fail(error) => {
            writes::fail(context, lease, loaded, error, Vec::new()).await?;
            Ok(Progress::LetGo)
        }
    }
}

/// Names a tool call once and for all, also for the guest that carries it out.
pub(crate) fn call_name(Position { run_id, step_no, call_no }: Position) -> String {
    format!("{run_id}.{step_no}.{call_no}")
}

/// The call that has this name; `None` for what is no such name. The text may come from anybody.
pub(crate) fn parse_call_name(name: &str) -> Option<Position> {
    let mut parts = name.split('.');
    let (run_id, step_no, call_no) = (parts.next()?, parts.next()?, parts.next()?);
    let number = |text: &str| text.parse::<u32>().ok().map(i64::from);
    let position =
        Position { run_id: run_id.parse().ok()?, step_no: number(step_no)?, call_no: number(call_no)? };
    parts.next().is_none().then_some(position)
}

/// Drops the work item of a run that has ended already, or is gone.
async fn forget(context: &Context, lease: &Lease) -> Result<(), Error> {
    let held = lease.clone();
    context
        .store
        .transaction("forget_work", move |tx| Box::pin(async move { queue::complete(tx, &held).await }))
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_found_by_its_name_alone() {
        let run_id = "run_01h455vb4pex5vsknk084sn02q";
        let position = parse_call_name(&format!("{run_id}.3.12")).unwrap();
        assert_eq!(call_name(position), format!("{run_id}.3.12"));
        let wrong = ["", "..", "x.1.1", run_id, ".1.1"].map(str::to_owned);
        let wrong_ends = ["", ".1", ".1.", ".1.-1", ".1.1.1", ".1.99999999999", ".a.b"];
        for name in wrong.into_iter().chain(wrong_ends.map(|end| format!("{run_id}{end}"))) {
            assert_eq!(parse_call_name(&name), None, "{name}");
        }
    }
}
