//! The schema of a tool, which tells the model what the tool does and which arguments it takes.

use herm_types::model::ToolSchema;
use serde_json::{Value, json};

/// The description of a tool and of its arguments.
pub(super) struct Schema {
    pub(super) description: String,
    /// The JSON schema of each argument, keyed by the argument's name.
    pub(super) properties: Value,
    /// The names of the arguments that every call must have.
    pub(super) required: &'static [&'static str],
}

impl Schema {
    /// Returns the schema as the model receives it. It allows only the arguments in `properties`.
    pub(super) fn of(self, name: &str) -> ToolSchema {
        let parameters = json!({
            "type": "object",
            "properties": self.properties,
            "required": self.required,
            "additionalProperties": false,
        });
        ToolSchema { name: name.to_owned(), description: self.description, parameters }
    }
}

/// Returns the schema of an argument that is a path in the workspace.
pub(super) fn path() -> Value {
    json!({"type": "string", "description": "Path in the workspace, for example notes/todo.md."})
}
