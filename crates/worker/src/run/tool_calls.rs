//! The tool calls of one step: intents together, effects side by side, each result as it comes.

use std::collections::BTreeSet;

use futures_util::future::try_join_all;
use herm_agent::steering::{Gate, Settlement, gate};
use herm_agent::tools::{self, Effect, MAX_CALLS_PER_TURN, ToolRequest};
use herm_store::journal::Position;
use herm_store::queue::Lease;
use herm_store::{Error, fault};
use herm_types::event::Event;
use herm_types::model::ToolCall;
use herm_types::model::ToolOutcome;
use herm_types::run::Run;
use tokio::time::Instant;

use super::load::Loaded;
use super::steering;
use super::writes::{self, ToolIntent};
use crate::tools::{Attempt, Place, run_tool};
use crate::worker::Context;

/// Makes these calls of step `step_no` and records what they gave; asks a person about those that take one.
pub(super) async fn make(
    context: &Context,
    lease: &Lease,
    loaded: &Loaded,
    step_no: i64,
    calls: &[(i64, ToolCall)],
) -> Result<(), Error> {
    let calls: Vec<(i64, ToolCall)> =
        calls.iter().map(|(call_no, call)| (*call_no, as_approved(loaded, *call_no, call))).collect();
    let new: Vec<_> =
        calls.iter().filter(|(call_no, _)| !loaded.open_tools.contains(call_no)).cloned().collect();
    let begun = if new.is_empty() {
        BTreeSet::new()
    } else {
        steering::begin(context, lease, loaded, step_no, &new).await?
    };
    let made = calls.iter().filter_map(|(call_no, call)| {
        // An intent that an earlier worker wrote: its effect may have happened.
        let was_begun = loaded.open_tools.contains(call_no);
        let is_made = was_begun || begun.contains(call_no);
        is_made.then(|| make_one(context, lease, loaded, (step_no, *call_no), call, was_begun))
    });
    try_join_all(made).await?;
    Ok(())
}

/// A call with the arguments with which a person approved it.
fn as_approved(loaded: &Loaded, call_no: i64, call: &ToolCall) -> ToolCall {
    match loaded.settlement(call_no) {
        Some(Settlement::Make { arguments: Some(arguments), .. }) => {
            ToolCall { arguments: arguments.clone(), ..call.clone() }
        }
        _ => call.clone(),
    }
}

pub(super) fn intent(run: &Run, call_no: i64, call: &ToolCall) -> ToolIntent {
    let arguments = call.arguments.clone();
    let shown = serde_json::from_str(&arguments).unwrap_or_else(|_| arguments.clone().into());
    ToolIntent {
        call_no,
        tool: call.tool.clone(),
        arguments,
        event: Event::ToolCall {
            run_id: run.run_id,
            thread_id: run.thread_id,
            tool_call_id: call.tool_call_id.clone(),
            tool: call.tool.clone(),
            arguments: shown,
        },
    }
}

async fn make_one(
    context: &Context,
    lease: &Lease,
    loaded: &Loaded,
    at: (i64, i64),
    call: &ToolCall,
    was_begun: bool,
) -> Result<(), Error> {
    let run = &loaded.run;
    let started = Instant::now();
    let outcome = outcome(context, loaded, at, call, was_begun).await;
    let duration_ms = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
    let event = Event::ToolResult {
        run_id: run.run_id,
        thread_id: run.thread_id,
        tool_call_id: call.tool_call_id.clone(),
        tool: call.tool.clone(),
        result: outcome.text.clone(),
        is_error: outcome.is_error,
        duration_ms,
    };
    writes::finish_tool(context, lease, run, at, serde_json::to_string(&outcome)?, event).await?;
    if call.tool == "shell" {
        context.keeper.acknowledge(loaded.workspace, &name(run, at)).await;
    }
    Ok(())
}

fn name(run: &Run, (step_no, call_no): (i64, i64)) -> String {
    super::call_name(Position { run_id: run.run_id, step_no, call_no })
}

async fn outcome(
    context: &Context,
    loaded: &Loaded,
    at: (i64, i64),
    call: &ToolCall,
    was_begun: bool,
) -> ToolOutcome {
    let is_error = true;
    if at.1 > MAX_CALLS_PER_TURN {
        let text =
            format!("This call was not made: one turn may make {MAX_CALLS_PER_TURN} calls. Make it again.");
        return ToolOutcome { text, is_error };
    }
    // One that was begun was allowed then; what it gave is still told.
    let note = match loaded.settlement(at.1) {
        Some(Settlement::Say(outcome)) => return outcome.clone(),
        Some(Settlement::Make { note, .. }) => note.as_deref(),
        _ if was_begun => None,
        _ => match gate(&loaded.deployment.settings, call) {
            Gate::Refuse(text) => return ToolOutcome { text, is_error },
            Gate::Go | Gate::Ask(_) => None,
        },
    };
    let request: ToolRequest = match tools::parse(call) {
        Ok(request) => request,
        Err(text) => return ToolOutcome { text, is_error },
    };
    let place = Place {
        sandbox: loaded.sandbox(),
        call: name(&loaded.run, at),
        secrets: loaded.deployment.settings.secrets.clone(),
    };
    let attempt = match (was_begun, request.effect()) {
        (false, _) | (true, Effect::Read | Effect::Idempotent) => Attempt::Make,
        (true, Effect::Unsafe) => Attempt::Settle,
    };
    fault::reach("effect.before", &call.tool);
    let outcome = run_tool(context, &place, request, attempt).await;
    fault::reach("effect.after", &call.tool);
    match note {
        Some(note) => ToolOutcome { text: format!("{note}\n{}", outcome.text), ..outcome },
        None => outcome,
    }
}
