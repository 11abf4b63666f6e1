//! Executes the tool calls of a step: records all intents in one transaction, executes the calls concurrently, and
//! records each result as soon as it is available.

use std::collections::BTreeSet;

use futures_util::future::try_join_all;
use herm_agent::steering::{PermissionDecision, Settlement, check_permission};
use herm_agent::tools::{self, Effect, MAX_CALLS_PER_TURN, ToolRequest};
use herm_store::journal::Position;
use herm_store::queue::Lease;
use herm_store::{Error, failpoint};
use herm_types::event::Event;
use herm_types::model::ToolCall;
use herm_types::model::ToolOutcome;
use herm_types::run::Run;
use tokio::time::Instant;

use super::load::LoadedRun;
use super::steering;
use super::writes::{self, ToolIntent};
use crate::tools::{CallMode, ToolCallContext, run_tool};
use crate::worker::Context;

/// Executes the calls of step `step_no` and records their results. For a call that a person must be asked about,
/// creates a steering request instead.
pub(super) async fn execute(
    context: &Context,
    lease: &Lease,
    loaded: &LoadedRun,
    step_no: i64,
    calls: &[(i64, ToolCall)],
) -> Result<(), Error> {
    let calls: Vec<(i64, ToolCall)> = calls
        .iter()
        .map(|(call_no, call)| (*call_no, with_approved_arguments(loaded, *call_no, call)))
        .collect();
    let new: Vec<_> =
        calls.iter().filter(|(call_no, _)| !loaded.open_tools.contains(call_no)).cloned().collect();
    let begun = if new.is_empty() {
        BTreeSet::new()
    } else {
        steering::begin(context, lease, loaded, step_no, &new).await?
    };
    let executions = calls.iter().filter_map(|(call_no, call)| {
        // The journal contains the call's intent but no result: an earlier attempt was interrupted. The call may
        // already have taken effect.
        let was_begun = loaded.open_tools.contains(call_no);
        let is_made = was_begun || begun.contains(call_no);
        is_made.then(|| execute_call(context, lease, loaded, (step_no, *call_no), call, was_begun))
    });
    try_join_all(executions).await?;
    Ok(())
}

/// If the person who approved the call edited its arguments, returns the call with the edited arguments. Otherwise
/// returns the call unchanged.
fn with_approved_arguments(loaded: &LoadedRun, call_no: i64, call: &ToolCall) -> ToolCall {
    match loaded.settlement(call_no) {
        Some(Settlement::Execute { arguments: Some(arguments), .. }) => {
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

async fn execute_call(
    context: &Context,
    lease: &Lease,
    loaded: &LoadedRun,
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
        context.sandbox_pool.acknowledge(loaded.workspace, &name(run, at)).await;
    }
    Ok(())
}

fn name(run: &Run, (step_no, call_no): (i64, i64)) -> String {
    super::call_name(Position { run_id: run.run_id, step_no, call_no })
}

async fn outcome(
    context: &Context,
    loaded: &LoadedRun,
    at: (i64, i64),
    call: &ToolCall,
    was_begun: bool,
) -> ToolOutcome {
    let is_error = true;
    if at.1 > MAX_CALLS_PER_TURN {
        let text = format!(
            "This call was not made: a turn may make at most {MAX_CALLS_PER_TURN} calls. Make it again in the next turn."
        );
        return ToolOutcome { text, is_error };
    }
    // If an earlier attempt has begun the call, its permission is not checked again, because the call was allowed then.
    let note = match loaded.settlement(at.1) {
        Some(Settlement::Skip(outcome)) => return outcome.clone(),
        Some(Settlement::Execute { note, .. }) => note.as_deref(),
        _ if was_begun => None,
        _ => match check_permission(&loaded.deployment.settings, call) {
            PermissionDecision::Deny(text) => return ToolOutcome { text, is_error },
            PermissionDecision::Allow | PermissionDecision::Ask(_) => None,
        },
    };
    let request: ToolRequest = match tools::parse(call) {
        Ok(request) => request,
        Err(text) => return ToolOutcome { text, is_error },
    };
    let call_context = ToolCallContext {
        sandbox: loaded.sandbox(),
        call_name: name(&loaded.run, at),
        secrets: loaded.deployment.settings.secrets.clone(),
    };
    let mode = match (was_begun, request.effect()) {
        (false, _) | (true, Effect::Read | Effect::Idempotent) => CallMode::Execute,
        (true, Effect::Unsafe) => CallMode::Recover,
    };
    failpoint::reach("effect.before", &call.tool);
    let outcome = run_tool(context, &call_context, request, mode).await;
    failpoint::reach("effect.after", &call.tool);
    match note {
        Some(note) => ToolOutcome { text: format!("{note}\n{}", outcome.text), ..outcome },
        None => outcome,
    }
}
