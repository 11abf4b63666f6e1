//! The tools of an agent: one file for each built-in tool, the table [`BUILTIN`] that lists them, and the [`Toolset`]
//! of a run.

mod ask_human;
mod call;
mod edit_file;
mod read_file;
mod schema;
mod shell;
mod toolset;
mod verdict;
mod write_file;

use herm_types::model::{ToolCall, ToolSchema};
use herm_types::tool::Permission;

pub use ask_human::{AskHuman, MAX_OPTIONS, MAX_QUESTION_CHARS};
pub use call::{CallMode, Cleared, FileRequest, ToolRequest};
pub use edit_file::EditFile;
pub use read_file::{DEFAULT_READ_LINES, ReadFile};
pub use shell::{DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S, Shell};
pub use toolset::Toolset;
pub use verdict::{NeededApproval, RequestContent, Verdict};
pub use write_file::WriteFile;

use call::ParsedCall;
use schema::Schema;

/// The maximum number of tool calls in one reply of the model. Further calls are not made; their result is an error that
/// explains this.
pub const MAX_CALLS_PER_TURN: i64 = 32;

/// All built-in tools, in the order in which they are sent to the model.
pub const BUILTIN: [&Tool; 5] =
    [&shell::TOOL, &read_file::TOOL, &write_file::TOOL, &edit_file::TOOL, &ask_human::TOOL];

/// A tool: a row of the table [`BUILTIN`].
#[derive(Debug)]
pub struct Tool {
    pub name: &'static str,
    /// The feature without which a deployment does not have the tool.
    pub needs: Feature,
    /// The effect of making the same call twice.
    pub effect: Effect,
    /// The permission of the tool in a deployment that does not set one.
    pub default_permission: Permission,
    schema: fn() -> Schema,
    /// Parses and validates the arguments of a call, which are a JSON object.
    parse: fn(&str) -> Result<ParsedCall, serde_json::Error>,
    /// Returns the part of a call's arguments that an approval covers, as a text that is equal for equivalent calls. If
    /// it returns `None`, an approval covers all arguments.
    approved_part: fn(&serde_json::Value) -> Option<&str>,
}

/// A feature of a deployment that a tool needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    Sandbox,
    Steering,
}

/// The effect of making the same tool call twice. It determines how the worker recovers a call whose result was lost in
/// a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The tool call changes nothing. After a crash it is made again.
    Read,
    /// Repeating the tool call has no further effect. After a crash it is made again.
    Idempotent,
    /// The tool call must not be repeated. After a crash, the worker asks the guest (the program that runs commands
    /// in the sandbox) for the result. If the guest has none, the model is told that the outcome is unknown.
    Unsafe,
}

impl Tool {
    fn schema(&self) -> ToolSchema {
        (self.schema)().of(self.name)
    }

    /// Parses and validates a call of this tool.
    ///
    /// # Errors
    /// Returns a text for the model that explains the error and contains the schema of the arguments.
    fn parse(&self, call: &ToolCall) -> Result<ParsedCall, String> {
        let arguments = if call.arguments.trim().is_empty() { "{}" } else { call.arguments.as_str() };
        (self.parse)(arguments).map_err(|error| {
            let schema = self.schema().parameters;
            format!("Invalid arguments for {}: {error}. The schema of the arguments: {schema}", self.name)
        })
    }
}

/// The value of [`Tool::approved_part`] for tools whose approvals cover all arguments.
fn all_arguments(_: &serde_json::Value) -> Option<&str> {
    None
}

fn find(name: &str) -> Option<&'static Tool> {
    BUILTIN.into_iter().find(|tool| tool.name == name)
}

/// Returns the tool of this name.
///
/// # Errors
/// Returns a text for the model that suggests the most similar name.
fn get(name: &str) -> Result<&'static Tool, String> {
    find(name).ok_or_else(|| {
        let names = BUILTIN.map(|tool| tool.name);
        let nearest =
            names.into_iter().min_by_key(|known| strsim::osa_distance(name, known)).unwrap_or_default();
        format!("Unknown tool {name:?}. Did you mean {nearest}? The tools are: {}.", names.join(", "))
    })
}

/// Checks the arguments of a tool call that a person has edited.
///
/// # Errors
/// Returns a text that explains the error and contains the schema of the arguments.
pub fn check_arguments(tool: &str, arguments: &serde_json::Value) -> Result<(), String> {
    let call =
        ToolCall { tool_call_id: String::new(), tool: tool.to_owned(), arguments: arguments.to_string() };
    get(tool)?.parse(&call).map(|_| ())
}

/// Returns a text that is equal for tool calls that the same approval covers. It contains the part of the arguments
/// that the tool defines, for example the command of `shell` without the timeout. If the tool defines none, it contains
/// all arguments, independent of JSON whitespace and field order.
pub fn canonical_call(tool: &str, arguments: &str) -> String {
    let Ok(parsed) = serde_json::from_str(arguments) else { return format!("{tool}\n{arguments}") };
    match find(tool).and_then(|row| (row.approved_part)(&parsed)) {
        Some(part) => format!("{tool}\n{part}"),
        None => format!("{tool}\n{}", sorted_json(&parsed)),
    }
}

/// Serializes a JSON value with the fields of each object sorted by name.
fn sorted_json(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let fields: std::collections::BTreeMap<&str, String> =
                map.iter().map(|(name, value)| (name.as_str(), sorted_json(value))).collect();
            let fields: Vec<String> =
                fields.into_iter().map(|(name, value)| format!("{}:{value}", Value::from(name))).collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(sorted_json).collect::<Vec<_>>().join(",")),
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_names_are_unique_and_the_total_size_of_the_schemas_is_bounded() {
        let mut names = BUILTIN.map(|tool| tool.name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), BUILTIN.len());
        let schemas = BUILTIN.map(Tool::schema);
        let size: usize =
            schemas.iter().map(|s| s.name.len() + s.description.len() + s.parameters.to_string().len()).sum();
        assert!(size < 12 * 1024, "{size} bytes");
    }

    #[test]
    fn the_error_for_invalid_arguments_contains_the_schema() {
        let parse = |tool: &str, arguments: &str| {
            let (tool_call_id, arguments) = ("c".to_owned(), arguments.to_owned());
            get(tool)?.parse(&ToolCall { tool_call_id, tool: tool.to_owned(), arguments })
        };
        let message = parse("shell", r#"{"command": "ls"#).unwrap_err();
        assert!(message.contains("EOF") && message.contains(r#""required":["command"]"#), "{message}");
        let message = parse("read_file", r#"{"file": "a"}"#).unwrap_err();
        assert!(message.contains("unknown field `file`"), "{message}");
        assert!(parse("shell", " ").unwrap_err().contains("missing field `command`"));
    }

    #[test]
    fn the_error_for_an_unknown_tool_suggests_the_nearest_name() {
        let message = check_arguments("readfile", &json!({})).unwrap_err();
        assert!(message.contains("Did you mean read_file?"), "{message}");
    }

    #[test]
    fn equivalent_calls_have_the_same_canonical_form() {
        let key = |tool: &str, arguments: &str| canonical_call(tool, arguments);
        assert_eq!(
            key("a", r#"{"x":1, "y":{"b":2,"a":[1, 2]}}"#),
            key("a", r#"{"y":{"a":[1,2],"b":2},"x":1}"#)
        );
        assert_eq!(key("shell", r#"{"command":"ls"}"#), "shell\nls");
        assert_eq!(key("shell", r#"{"command":"ls"}"#), key("shell", r#"{"command":"ls","timeout_s":9}"#));
        assert_ne!(key("shell", r#"{"command":"ls"}"#), key("shell", r#"{"command":"ls "}"#));
        assert_ne!(key("a", r#"{"x":[1,2]}"#), key("a", r#"{"x":[2,1]}"#));
        assert_ne!(key("a", r#"{"x":1}"#), key("b", r#"{"x":1}"#));
        assert_ne!(key("a", r#"{"x":"1"}"#), key("a", r#"{"x":1}"#));
        assert_eq!(key("a", "{x"), "a\n{x");
    }
}
