//! Tool calls on their way from the model to their execution: first parsed, then cleared, that is, allowed to be
//! executed.

use super::ask_human::AskHuman;
use super::edit_file::EditFile;
use super::read_file::ReadFile;
use super::shell::Shell;
use super::tool::{Effect, Tool};
use super::write_file::WriteFile;

/// A tool call whose name and arguments are valid.
#[derive(Debug)]
pub(super) enum ParsedCall {
    Execute(ToolRequest),
    /// A call that is not executed: its result is the answer of a person.
    AskPerson(AskHuman),
}

impl From<ToolRequest> for ParsedCall {
    fn from(request: ToolRequest) -> Self {
        Self::Execute(request)
    }
}

impl From<FileRequest> for ParsedCall {
    fn from(request: FileRequest) -> Self {
        Self::Execute(ToolRequest::File(request))
    }
}

/// The tool and the parsed arguments of a tool call that the worker can execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolRequest {
    Shell(Shell),
    File(FileRequest),
}

/// The tool and the parsed arguments of a tool call that reads or writes one file of the workspace.
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

/// A tool call that may be executed. Only `Toolset` and `NeededApproval` create it, so no call is executed that was
/// neither judged nor approved by a person.
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
    /// Returns the risk of the call, if it has one. A call with a risk needs a person's approval, whatever the tool's
    /// permission is.
    pub(super) fn risk(&self) -> Option<herm_command_risk::Risk> {
        match self {
            Self::Shell(shell) => herm_command_risk::assess(&shell.command),
            Self::File(_) => None,
        }
    }
}
