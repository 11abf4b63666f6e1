//! Executes the built-in tools.

mod files;
mod output;
mod shell;

use std::collections::BTreeMap;

use herm_agent::tools::{CallMode, ToolRequest};
use herm_types::SecretId;
use herm_types::model::ToolOutcome;

use crate::context::Context;
use crate::sandboxes::pool::SandboxConfig;

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

/// The result of executing a tool call.
pub(crate) struct Execution {
    pub(crate) outcome: ToolOutcome,
    /// True if the sandbox's guest retains the result until it is acknowledged.
    pub(crate) is_retained: bool,
}

/// The tool result that the model receives for a call whose outcome is unknown.
const UNKNOWN_OUTCOME: &str = "The outcome of this call is unknown: the server was interrupted while it ran, and it \
                       may or may not have taken effect. Check the state before you repeat it.";

pub(crate) fn unknown_outcome() -> ToolOutcome {
    ToolOutcome { text: UNKNOWN_OUTCOME.to_owned(), is_error: true }
}

/// Executes a tool call or recovers its result, depending on `mode`. A failure becomes an error result for the model.
pub(crate) async fn execute(
    context: &Context,
    call_context: &ToolCallContext,
    request: ToolRequest,
    mode: CallMode,
) -> Execution {
    let is_retained = matches!(request, ToolRequest::Shell(_));
    let outcome = match (request, mode) {
        (ToolRequest::Shell(shell), mode) => shell::run(context, call_context, shell, mode).await,
        (ToolRequest::File(request), CallMode::Execute) => files::run(context, call_context, request).await,
        // Nobody knows if the file was changed.
        (ToolRequest::File(_), CallMode::Recover) => unknown_outcome(),
    };
    Execution { outcome: output::bound(call_context, outcome).await, is_retained }
}
