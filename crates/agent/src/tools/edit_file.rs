//! The tool `edit_file`, which replaces a text in a file of the workspace.

use herm_types::tool::Permission;
use serde::Deserialize;
use serde_json::json;

use super::schema::{Schema, path};
use super::tool::{Effect, Feature, Tool, all_arguments};

pub(super) const TOOL: Tool = Tool {
    name: "edit_file",
    needs: Feature::Sandbox,
    effect: Effect::Unsafe,
    default_permission: Permission::AlwaysAllow,
    schema,
    approved_part: all_arguments,
};

/// The arguments of the tool `edit_file`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditFile {
    pub path: String,
    pub old_text: String,
    pub new_text: String,
    #[serde(default)]
    pub replace_all: bool,
}

fn schema() -> Schema {
    Schema {
        description: "Replace old_text with new_text in a file. old_text must occur exactly once, unless replace_all is \
                      true."
            .to_owned(),
        properties: json!({
            "path": path(),
            "old_text": {"type": "string"},
            "new_text": {"type": "string"},
            "replace_all": {"type": "boolean"},
        }),
        required: &["path", "old_text", "new_text"],
    }
}
