//! The tool `write_file`, which writes a file in the workspace.

use herm_types::tool::Permission;
use serde::Deserialize;
use serde_json::json;

use super::schema::{Schema, path};
use super::tool::{Effect, Feature, Tool, all_arguments};

pub(super) const TOOL: Tool = Tool {
    name: "write_file",
    needs: Feature::Sandbox,
    effect: Effect::Idempotent,
    default_permission: Permission::AlwaysAllow,
    schema,
    approved_part: all_arguments,
};

/// The arguments of the tool `write_file`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteFile {
    pub path: String,
    pub content: String,
}

fn schema() -> Schema {
    Schema {
        description: "Write a file, replacing its content if it exists. Missing directories are created."
            .to_owned(),
        properties: json!({"path": path(), "content": {"type": "string"}}),
        required: &["path", "content"],
    }
}
