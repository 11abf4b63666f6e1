//! The tool `read_file`, which returns the text of a file in the workspace.

use herm_types::tool::Permission;
use serde::Deserialize;
use serde_json::json;

use super::schema::{Schema, path};
use super::tool::{Effect, Feature, Tool, all_arguments};

/// The maximum number of lines that `read_file` returns if the call sets no limit.
pub const DEFAULT_READ_LINES: usize = 2000;

pub(super) const TOOL: Tool = Tool {
    name: "read_file",
    needs: Feature::Sandbox,
    effect: Effect::Read,
    default_permission: Permission::AlwaysAllow,
    schema,
    approved_part: all_arguments,
};

/// The arguments of the tool `read_file`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadFile {
    pub path: String,
    /// The number of the first line to return, starting at 1. If it is `None`, reading begins at the first line.
    pub offset: Option<usize>,
    /// The maximum number of lines to return. If it is `None`, [`DEFAULT_READ_LINES`] applies.
    pub limit: Option<usize>,
}

fn schema() -> Schema {
    Schema {
        description: format!("Read a text file. Returns at most limit lines (default {DEFAULT_READ_LINES})."),
        properties: json!({
            "path": path(),
            "offset": {"type": "integer", "minimum": 1, "description": "First line to return, starting at 1."},
            "limit": {"type": "integer", "minimum": 1, "description": "Maximum number of lines."},
        }),
        required: &["path"],
    }
}
