//! Executes the built-in tools.

mod call;
mod files;
mod output;
mod shell;

use herm_agent::tools::{CallMode, ToolRequest};
use herm_types::model::ToolOutcome;

use crate::context::Context;

pub(crate) use call::{ToolCallContext, unknown_outcome};

/// The result of executing a tool call.
pub(crate) struct Execution {
    pub(crate) outcome: ToolOutcome,
    /// True if the guest, the program that runs commands in the sandbox, retains the result until the worker
    /// acknowledges it.
    pub(crate) is_retained: bool,
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
