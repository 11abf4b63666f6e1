//! Processes the tool calls of a step: records in one transaction that the calls are about to be made, executes them
//! concurrently, and records each result as soon as it is available.

use futures_util::future::try_join_all;
use herm_agent::OpenCall;
use herm_agent::tools::{Cleared, Verdict};
use herm_store::journal::Position;
use herm_store::{Error, failpoint};
use herm_types::model::ToolOutcome;
use tokio::time::Instant;

use super::step::Step;
use super::{steering, writes};
use crate::tools::{self, Execution, ToolCallContext};

/// Executes or refuses each call of a step, according to its verdict, and records the results. For a call that a person
/// must be asked about, creates a steering request instead.
pub(super) async fn execute(step: Step<'_>, calls: Vec<OpenCall>) -> Result<(), Error> {
    let allowed = steering::begin(step, &calls).await?;
    let calls = calls.into_iter().filter(|open| open.was_begun || allowed.contains(&open.call_no));
    try_join_all(calls.map(|open| process(step, open))).await?;
    Ok(())
}

async fn process(step: Step<'_>, open: OpenCall) -> Result<(), Error> {
    let position = step.position(open.call_no);
    let started = Instant::now();
    let Execution { outcome, is_retained } = match open.verdict {
        Verdict::Answer(outcome) => Execution { outcome, is_retained: false },
        Verdict::Execute(cleared) => make(step, position, &open.call.tool, cleared).await,
        // The call is allowed only because a person has approved an equivalent call before.
        Verdict::NeedsApproval(needed) => {
            make(step, position, &open.call.tool, needed.approved_before()).await
        }
        // An unanswered question has no intent (the journal entry that announces a call), so this branch is reached
        // only if the journal is damaged.
        Verdict::Question(_) => Execution { outcome: tools::unknown_outcome(), is_retained: false },
    };
    let duration_ms = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
    writes::finish_tool(step, position, open.call, outcome, duration_ms).await?;
    if is_retained {
        step.context.sandbox_pool.acknowledge(step.loaded.workspace, &position.call_name()).await;
    }
    Ok(())
}

/// Executes an allowed tool call. If an earlier attempt may have executed it and it must not be repeated, recovers its
/// result instead.
async fn make(step: Step<'_>, position: Position, tool: &str, cleared: Cleared) -> Execution {
    let (request, mode, note) = cleared.into_parts();
    let call_context = ToolCallContext {
        sandbox: step.loaded.sandbox(),
        call_name: position.call_name(),
        secrets: step.loaded.deployment.settings.secrets.clone(),
    };
    failpoint::reach("effect.before", tool);
    let execution = tools::execute(step.context, &call_context, request, mode).await;
    failpoint::reach("effect.after", tool);
    let outcome = match note {
        Some(note) => {
            ToolOutcome { text: format!("{note}\n{}", execution.outcome.text), ..execution.outcome }
        }
        None => execution.outcome,
    };
    Execution { outcome, ..execution }
}
