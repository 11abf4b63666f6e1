//! Cancels a run: aborts its model call and its tool calls, and records the incomplete reply and a result for each
//! unfinished call, so that the thread's conversation can continue.

use herm_agent::steering::Settlement;
use herm_app::steering;
use herm_store::journal::{self, Position};
use herm_store::runs::{self, Transition};
use herm_store::{Error, Tx, events, queue, threads};
use herm_types::RunId;
use herm_types::event::Event;
use herm_types::id::EventId;
use herm_types::model::ToolOutcome;
use herm_types::model::{Block, ModelReply, StopReason, TokenUsage};
use herm_types::run::Run;
use tokio::sync::Notify;

use super::load::{self, Extent, LoadedRun};
use super::message_stream::MessageStream;
use super::writes;
use crate::context::Context;
use crate::lease::HeldLease;

/// The tool result that the model receives for a call that was interrupted by the cancellation of its run.
const INTERRUPTED: &str = "Cancelled: the run was stopped before this call completed. Its effects so far were not \
                           undone. Check the state before you rely on it.";

/// Waits until a client requests the cancellation of the run. Checks the store for such a request whenever `changed` is
/// notified.
pub(super) async fn wait_until_requested(
    context: &Context,
    run: &Run,
    changed: &Notify,
) -> Result<(), Error> {
    let run_id = run.run_id;
    loop {
        changed.notified().await;
        let is_requested = context
            .store
            .read("is_cancel_requested", move |tx| Box::pin(runs::is_cancel_requested(tx, run_id)))
            .await?;
        if is_requested {
            return Ok(());
        }
    }
}

/// Ends a run whose cancellation was requested. The state is read in the same transaction that ends the run, because
/// the aborted step may have committed a write just before it was aborted.
pub(super) async fn cancel_run(context: &Context, lease: &HeldLease) -> Result<(), Error> {
    let (run_id, ids) = (lease.subject::<RunId>()?, context.ids.clone());
    let workspaces = context.workspaces.clone();
    let stopped = lease
        .transaction("cancel_run", move |tx, lease| {
            Box::pin(async move {
                let Some(loaded) =
                    load::read(tx, lease.deployment_id, run_id, Extent::OwnRun, &workspaces).await?
                else {
                    queue::complete(tx, &lease).await?;
                    return Ok(None);
                };
                let run = &loaded.run;
                threads::find_and_lock(tx, run.deployment_id, run.thread_id).await?;
                let mut messages =
                    MessageStream::new(run_id, run.thread_id, ids, &load_sent_events(tx, &loaded).await?);
                messages.abandon();
                let output = messages.take_unsent();
                record_partial_reply(tx, &loaded, &output).await?;
                let new_messages = writes::emit_output(tx, run.deployment_id, output).await?;
                let stopped = stop_tools(tx, &loaded).await?;
                steering::cancel_all(tx, run.thread_id).await?;
                let transition = Transition::Cancel(Some(loaded.usage));
                writes::end(tx, &lease, &loaded.run, transition, new_messages).await?;
                Ok(Some((loaded.workspace, stopped)))
            })
        })
        .await?;
    if let Some((workspace, calls)) = stopped {
        calls.into_iter().for_each(|call| context.sandbox_pool.abandon(workspace, call));
    }
    Ok(())
}

/// Returns the `token` and `message` events that the run's unfinished model call has already emitted, or none if no
/// model call is unfinished.
async fn load_sent_events(
    tx: &mut Tx,
    loaded: &LoadedRun,
) -> Result<Vec<herm_types::event::StoredEvent>, Error> {
    match loaded.open_call() {
        None => Ok(Vec::new()),
        Some(intent) => {
            let (deployment_id, run_id) = (loaded.run.deployment_id, loaded.run.run_id);
            events::text_after(tx, deployment_id, run_id, EventId(intent.after)).await
        }
    }
}

/// Records the part of an incomplete reply that was already streamed to clients. It becomes the reply of the step, so
/// later model calls include it in the conversation.
async fn record_partial_reply(tx: &mut Tx, loaded: &LoadedRun, output: &[Event]) -> Result<(), Error> {
    let Some(step) = loaded.state.steps.last().filter(|_| loaded.open_call().is_some()) else {
        return Ok(());
    };
    let text: String = output
        .iter()
        .filter_map(|event| match event {
            Event::Message { content, .. } => Some(content.as_str()),
            _ => None,
        })
        .collect();
    if text.is_empty() {
        return Ok(());
    }
    let reply = ModelReply {
        blocks: vec![Block::Text { text }],
        stop: StopReason::EndTurn,
        usage: TokenUsage::default(),
    };
    let position = Position { run_id: loaded.run.run_id, step_no: step.step_no, call_no: 0 };
    journal::record_result(tx, position, &serde_json::to_string(&reply)?).await
}

/// Records a result for each unfinished tool call of the last step, and emits an event for each result. Returns the
/// call names (unique ids) of these calls, so that the caller can stop their commands.
async fn stop_tools(tx: &mut Tx, loaded: &LoadedRun) -> Result<Vec<String>, Error> {
    let run = &loaded.run;
    let Some(step) = loaded.state.steps.last() else { return Ok(Vec::new()) };
    let calls: Vec<_> = step.reply.iter().flat_map(ModelReply::tool_calls).collect();
    let mut stopped = Vec::new();
    for call_no in &step.begun {
        let index = usize::try_from(call_no - 1).unwrap_or(usize::MAX);
        let Some(call) = calls.get(index) else { continue };
        let position = Position { run_id: run.run_id, step_no: step.step_no, call_no: *call_no };
        let outcome = interrupted_outcome(step.settlements.get(call_no));
        let duration_ms = journal::age_ms(tx, position).await?;
        writes::record_outcome(tx, run, position, (*call).clone(), outcome, duration_ms).await?;
        stopped.push(position.call_name());
    }
    Ok(stopped)
}

/// Returns the tool result of a call that is unfinished when its run is cancelled. If a person's answer already
/// provides the result, that result is returned, because nothing was interrupted.
fn interrupted_outcome(settlement: Option<&Settlement>) -> ToolOutcome {
    match settlement {
        Some(Settlement::Skip(said)) => said.clone(),
        _ => ToolOutcome { text: INTERRUPTED.to_owned(), is_error: true },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancelling_keeps_answers_of_a_person_and_interrupts_other_calls() {
        let said = ToolOutcome { text: "Green.".to_owned(), is_error: false };
        assert_eq!(interrupted_outcome(Some(&Settlement::Skip(said.clone()))), said);
        let executing = Settlement::Execute { arguments: None, note: None };
        for settlement in [Some(&executing), None] {
            assert_eq!(interrupted_outcome(settlement).text, INTERRUPTED);
        }
    }
}
