//! Drives one run in a loop: loads the run's state, decides on the next step and executes the step.

mod cancel;
mod fallback;
mod load;
mod message_stream;
mod model_call;
mod steering;
mod tool_calls;
mod writes;

use herm_agent::{Decision, decide};
use herm_store::journal::Position;
use herm_store::queue::{self, Lease};
use herm_store::{Error, failpoint};
use tokio::sync::Notify;

use crate::worker::Context;
use load::LoadedRun;

/// The result of one pass of the loop in `drive`.
enum Progress {
    /// The run continues: the loop loads its new state and decides again.
    Continue,
    /// The run has ended, or waits in the queue. This worker has released the run's lease, so the loop ends.
    Released,
}

/// Drives a run until it ends or has to wait. `changed` is notified when another task has changed the run, for example
/// by requesting its cancellation.
pub(crate) async fn drive(context: &Context, lease: &Lease, changed: &Notify) -> Result<(), Error> {
    loop {
        let Some(loaded) = load::load(context, lease).await? else {
            return complete_item(context, lease).await;
        };
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
    }
}

async fn advance(context: &Context, lease: &Lease, loaded: &LoadedRun) -> Result<Progress, Error> {
    match decide(&loaded.state) {
        Decision::CallModel { step_no, turns } => {
            if loaded.deployment.settings.sandbox.enabled {
                context.sandbox_pool.warm(loaded.sandbox());
            }
            model_call::execute(context, lease, loaded, step_no, turns).await
        }
        Decision::RunTools { step_no, calls } => {
            tool_calls::execute(context, lease, loaded, step_no, &calls).await?;
            Ok(Progress::Continue)
        }
        Decision::Wait => steering::wait_for_person(context, lease, loaded).await,
        Decision::Finish => writes::finish(context, lease, loaded).await,
        Decision::Fail(error) => {
            writes::fail(context, lease, loaded, error, Vec::new()).await?;
            Ok(Progress::Released)
        }
    }
}

/// Returns the call name of a tool call: a unique string of run id, step number and call number. It is also the id of
/// the command that the call executes in the sandbox.
pub(crate) fn call_name(Position { run_id, step_no, call_no }: Position) -> String {
    format!("{run_id}.{step_no}.{call_no}")
}

/// Parses a call name, which consists of run id, step number and call number. Returns `None` if it is invalid. The name
/// is untrusted, because programs in a sandbox can send any name to the proxy.
pub(crate) fn parse_call_name(name: &str) -> Option<Position> {
    let mut parts = name.split('.');
    let (run_id, step_no, call_no) = (parts.next()?, parts.next()?, parts.next()?);
    let number = |text: &str| text.parse::<u32>().ok().map(i64::from);
    let position =
        Position { run_id: run_id.parse().ok()?, step_no: number(step_no)?, call_no: number(call_no)? };
    parts.next().is_none().then_some(position)
}

/// Completes the work item of a run that has already ended or was deleted.
async fn complete_item(context: &Context, lease: &Lease) -> Result<(), Error> {
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
    fn a_call_name_parses_back_and_invalid_names_are_rejected() {
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
