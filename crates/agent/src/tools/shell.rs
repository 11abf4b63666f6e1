//! The tool `shell`, which executes a command in the sandbox.

use herm_types::tool::Permission;
use serde::Deserialize;
use serde_json::{Value, json};

use super::schema::Schema;
use super::tool::{Effect, Feature, Tool};

/// The timeout of a shell command that sets none, in seconds.
pub const DEFAULT_TIMEOUT_S: u64 = 120;
/// The maximum timeout of a shell command, in seconds. A longer timeout is reduced to this maximum.
pub const MAX_TIMEOUT_S: u64 = 1800;

pub(super) const TOOL: Tool = Tool {
    name: "shell",
    needs: Feature::Sandbox,
    effect: Effect::Unsafe,
    default_permission: Permission::AlwaysAllow,
    schema,
    approved_part: command,
};

/// The arguments of the tool `shell`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shell {
    pub command: String,
    /// The timeout in seconds, from 1 to [`MAX_TIMEOUT_S`]. If it is `None`, [`DEFAULT_TIMEOUT_S`] applies.
    pub timeout_s: Option<u64>,
}

fn schema() -> Schema {
    Schema {
        description: format!(
            "Run a command with sh -c in /workspace and return its output and exit status. The command is killed \
             after timeout_s seconds (default {DEFAULT_TIMEOUT_S}, maximum {MAX_TIMEOUT_S})."
        ),
        properties: json!({
            "command": {"type": "string"},
            "timeout_s": {"type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_S},
        }),
        required: &["command"],
    }
}

/// An approval covers the command, with any timeout.
fn command(arguments: &Value) -> Option<&str> {
    arguments.get("command")?.as_str()
}
