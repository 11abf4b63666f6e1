//! Cancelling a run: what is under way is stopped, and the thread is left as if the agent had been interrupted.

use herm_agent::steering::Settlement;
use herm_app::steering;
use herm_store::journal;
use herm_store::queue::{self, Lease};
use herm_store::{Error, Tx, events, runs, threads};
use herm_types::RunId;
use herm_types::event::Event;
use herm_types::id::EventId;
use herm_types::model::ToolOutcome;
use herm_types::model::{Block, ModelReply, StopReason, TokenUsage};
use herm_types::run::{Run, RunStatus};
use tokio::sync::Notify;

use super::load::{self, Loaded};
use super::voice::Voice;
use super::writes;
use crate::dispatch::subject;
use crate::worker::Context;

/// Told to a model of a call that was under way when its run was cancelled.
const INTERRUPTED: &str = "Cancelled: the run was stopped before this call had ended. What it had done until then \
                           stands; check the state before you rely on it.";

/// Waits until the run is to be cancelled.
pub(super) async fn requested(context: &Context, run: &Run, look: &Notify) -> Result<(), Error> {
    let run_id = run.run_id;
    loop {
        look.notified().await;
        let read = context
            .store
            .read("is_cancel_requested", move |tx| Box::pin(runs::is_cancel_requested(tx, run_id)))
            .await?;
        if read {
            return Ok(());
        }
    }
}

/// Ends a run that is to be cancelled. Everything is read in the transaction that writes: a step that was cut off
/// may have written last before it.
pub(super) async fn wind_up(context: &Context, lease: &Lease) -> Result<(), Error> {
    let (held, run_id, ids) = (lease.clone(), subject::<RunId>(lease)?, context.ids.clone());
    let workspaces = context.workspaces.clone();
    let stopped = context
        .store
        .transaction("cancel_run", move |tx| {
            Box::pin(async move {
                queue::hold(tx, &held).await?;
                let Some(loaded) = load::read(tx, held.deployment_id, run_id, &workspaces).await? else {
                    queue::complete(tx, &held).await?;
                    return Ok::<_, Error>(None);
                };
                let run = &loaded.run;
                threads::find_and_lock(tx, run.deployment_id, run.thread_id).await?;
                let mut voice = Voice::new(run_id, run.thread_id, ids, &spoken(tx, &loaded).await?);
                voice.abandon();
                let said = voice.take_unsent();
                record_partial_reply(tx, &loaded, &said).await?;
                let closed = writes::utter(tx, run.deployment_id, said).await?;
                let stopped = stop_tools(tx, &loaded).await?;
                steering::cancel_all(tx, run.thread_id).await?;
                writes::end(tx, &held, run, RunStatus::Cancelled, None, closed, &loaded.usage).await?;
                Ok(Some((loaded.workspace, stopped)))
            })
        })
        .await?;
    if let Some((workspace, calls)) = stopped {
        calls.into_iter().for_each(|call| context.keeper.abandon(workspace, call));
    }
    Ok(())
}

async fn spoken(tx: &mut Tx, loaded: &Loaded) -> Result<Vec<herm_types::event::StoredEvent>, Error> {
    match loaded.open_call {
        None => Ok(Vec::new()),
        Some(intent) => {
            let (deployment_id, run_id) = (loaded.run.deployment_id, loaded.run.run_id);
            events::spoken_after(tx, deployment_id, run_id, EventId(intent.after)).await
        }
    }
}

/// What the customer has read of an answer belongs to the conversation, so that the agent knows it too.
async fn record_partial_reply(tx: &mut Tx, loaded: &Loaded, said: &[Event]) -> Result<(), Error> {
    let Some(step) = loaded.state.steps.last().filter(|_| loaded.open_call.is_some()) else { return Ok(()) };
    let text: String = said
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
    let position = writes::position(&loaded.run, step.step_no, 0);
    journal::record_result(tx, position, &serde_json::to_string(&reply)?).await
}

/// Closes the tool calls that are under way; gives the names by which their commands are known.
async fn stop_tools(tx: &mut Tx, loaded: &Loaded) -> Result<Vec<String>, Error> {
    let run = &loaded.run;
    let Some(step) = loaded.state.steps.last() else { return Ok(Vec::new()) };
    let calls: Vec<_> = step.reply.iter().flat_map(ModelReply::tool_calls).collect();
    let mut stopped = Vec::new();
    for call_no in &loaded.open_tools {
        let index = usize::try_from(call_no - 1).unwrap_or(usize::MAX);
        let Some(call) = calls.get(index) else { continue };
        let position = writes::position(run, step.step_no, *call_no);
        let outcome = outcome_of(loaded.settlement(*call_no));
        journal::record_result(tx, position, &serde_json::to_string(&outcome)?).await?;
        let event = Event::ToolResult {
            run_id: run.run_id,
            thread_id: run.thread_id,
            tool_call_id: call.tool_call_id.clone(),
            tool: call.tool.clone(),
            result: outcome.text,
            is_error: outcome.is_error,
            duration_ms: journal::age_ms(tx, position).await?,
        };
        tx.emit(run.deployment_id, event);
        stopped.push(super::call_name(position));
    }
    Ok(stopped)
}

/// What the model is told of a call that was under way. One that only tells what a person said does nothing that could
/// be cut off, and what was said stays known.
fn outcome_of(settlement: Option<&Settlement>) -> ToolOutcome {
    match settlement {
        Some(Settlement::Say(said)) => said.clone(),
        _ => ToolOutcome { text: INTERRUPTED.to_owned(), is_error: true },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_said_stays_known_and_what_was_being_made_is_interrupted() {
        let said = ToolOutcome { text: "Green.".to_owned(), is_error: false };
        assert_eq!(outcome_of(Some(&Settlement::Say(said.clone()))), said);
        let made = Settlement::Make { arguments: None, note: None };
        for settlement in [Some(&made), None] {
            assert_eq!(outcome_of(settlement).text, INTERRUPTED);
        }
    }
}
