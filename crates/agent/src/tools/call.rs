//! Tool calls on their way from the model to their execution: parsed, then cleared.

use super::{AskHuman, EditFile, Effect, ReadFile, Shell, Tool, WriteFile};

/// A tool call whose name and arguments are valid.
#[derive(Debug)]
pub(super) enum ParsedCall {
    Execute(ToolRequest),
    /// A call that is not executed: its result is the answer of a person.
    AskPerson(AskHuman),
}

/// The request of a tool call that the worker can execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolRequest {
    Shell(Shell),
    File(FileRequest),
}

/// The request of a tool that reads or writes one file of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileRequest {
    Read(ReadFile),
    Write(WriteFile),
    Edit(EditFile),
}

/// The mode in which a tool call is processed. It depends on whether an earlier attempt may already have executed the
/// call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallMode {
    /// Execute the call: it was not started before, or it can safely be repeated.
    Execute,
    /// Find out the result of the call without executing it again: an earlier attempt may have executed it, and a
    /// repetition is not safe.
    Recover,
}

/// A tool call that may be executed. Only [`Toolset`](super::Toolset) and [`NeededApproval`](super::NeededApproval)
/// create it, so a call cannot be executed without a permission check or a person's approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleared {
    request: ToolRequest,
    mode: CallMode,
    note: Option<String>,
}

impl Cleared {
    pub(super) fn new(tool: &Tool, request: ToolRequest, was_begun: bool, note: Option<String>) -> Self {
        let mode = match (was_begun, tool.effect) {
            (false, _) | (true, Effect::Read | Effect::Idempotent) => CallMode::Execute,
            (true, Effect::Unsafe) => CallMode::Recover,
        };
        Self { request, mode, note }
    }

    /// Returns the request, the mode in which to process it, and a text for the model that must precede the result.
    pub fn into_parts(self) -> (ToolRequest, CallMode, Option<String>) {
        (self.request, self.mode, self.note)
    }
}

impl ToolRequest {
    /// Returns the risk of the call, which needs the approval of a person whatever the tool's permission is.
    pub(super) fn risk(&self) -> Option<herm_command_risk::Risk> {
        match self {
            Self::Shell(shell) => herm_command_risk::assess(&shell.command),
            Self::File(_) => None,
        }
    }
}
