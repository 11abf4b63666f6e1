//! Executes the built-in tools.

mod files;
mod output;
mod shell;

use std::collections::BTreeMap;

use herm_agent::tools::ToolRequest;
use herm_types::SecretId;
use herm_types::model::ToolOutcome;

use crate::sandbox_pool::SandboxConfig;
use crate::worker::Context;

/// The context of a tool call: the call's sandbox, the unique name of the call, and the secrets that it may use.
#[derive(Clone, Debug)]
pub(crate) struct ToolCallContext {
    pub(crate) sandbox: SandboxConfig,
    /// The unique call name: run id, step number and call number.
    pub(crate) call_name: String,
    /// The secrets that the run's deployment uses, keyed by environment variable name. In the sandbox, each variable
    /// holds the secret's placeholder, not its value.
    pub(crate) secrets: BTreeMap<String, SecretId>,
}

/// The mode in which a tool call is processed. It depends on whether an earlier attempt may already have executed the
/// call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallMode {
    /// Execute the call: it was not started before, or it can safely be repeated.
    Execute,
    /// Find out the result of the call without executing it again: an earlier attempt may have executed it, and a
    /// repetition is not safe.
    Recover,
}

/// The tool result that the model receives for a call whose outcome is unknown.
const UNKNOWN_OUTCOME: &str = "The outcome of this call is unknown: the server was interrupted while it ran, and it \
                       may or may not have taken effect. Check the state before you repeat it.";

fn unknown_outcome() -> ToolOutcome {
    ToolOutcome { text: UNKNOWN_OUTCOME.to_owned(), is_error: true }
}

/// Executes a tool call or recovers its result, depending on `mode`. A failure becomes an error result for the model.
pub(crate) async fn run_tool(
    context: &Context,
    call_context: &ToolCallContext,
    request: ToolRequest,
    mode: CallMode,
) -> ToolOutcome {
    let outcome = match request {
        ToolRequest::Shell(shell) => shell::run(context, call_context, shell, mode).await,
        // A question is not executed: its result is the person's answer, so it does not reach this function.
        ToolRequest::AskHuman(_) => unknown_outcome(),
        ToolRequest::EditFile(_) if mode == CallMode::Recover => unknown_outcome(),
        ToolRequest::ReadFile(_) | ToolRequest::WriteFile(_) | ToolRequest::EditFile(_) => {
            files::run(context, call_context, request).await
        }
    };
    output::bound(call_context, outcome).await
}
