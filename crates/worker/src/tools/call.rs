//! The context in which every tool is executed, and the result of a call whose outcome is unknown.

use std::collections::BTreeMap;

use herm_types::SecretId;
use herm_types::model::ToolOutcome;

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

/// The tool result that the model receives for a call whose outcome is unknown.
const UNKNOWN_OUTCOME: &str = "The outcome of this call is unknown: the server was interrupted while it ran, and it \
                       may or may not have taken effect. Check the state before you repeat it.";

pub(crate) fn unknown_outcome() -> ToolOutcome {
    ToolOutcome { text: UNKNOWN_OUTCOME.to_owned(), is_error: true }
}
