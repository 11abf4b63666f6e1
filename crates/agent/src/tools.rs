//! The built-in tools: how a model is told of them, and what its calls mean.

use std::collections::BTreeMap;

use herm_types::model::{ToolCall, ToolSchema};
use herm_types::tool::{BUILTIN, Permission, ToolSetting};
use serde::Deserialize;
use serde_json::json;

/// Seconds a command may take when the model does not say.
pub const DEFAULT_TIMEOUT_S: u64 = 120;
/// The most seconds a command may be given.
pub const MAX_TIMEOUT_S: u64 = 1800;
/// Tool calls of one turn that are run; the model is told of the rest.
pub const MAX_CALLS_PER_TURN: i64 = 32;
/// Lines that `read_file` gives when the model does not say.
pub const DEFAULT_READ_LINES: usize = 2000;

/// A tool call that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolRequest {
    Shell(Shell),
    ReadFile(ReadFile),
    WriteFile(WriteFile),
    EditFile(EditFile),
}

/// What making a call twice would do: how a call whose result was lost is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It changes nothing: it is made again.
    Read,
    /// Made twice it does what it does once: it is made again.
    Idempotent,
    /// It is never repeated: whoever carried it out is asked, and if nobody knows the model is told so.
    Unsafe,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shell {
    pub command: String,
    pub timeout_s: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadFile {
    pub path: String,
    /// The first line to give, from 1.
    pub offset: Option<usize>,
    /// The most lines to give.
    pub limit: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteFile {
    pub path: String,
    pub content: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditFile {
    pub path: String,
    pub old_text: String,
    pub new_text: String,
    #[serde(default)]
    pub replace_all: bool,
}

impl ToolRequest {
    pub fn effect(&self) -> Effect {
        match self {
            Self::ReadFile(_) => Effect::Read,
            Self::WriteFile(_) => Effect::Idempotent,
            Self::Shell(_) | Self::EditFile(_) => Effect::Unsafe,
        }
    }
}

/// The tools that are enabled as a model is told of them, always in this order.
pub fn schemas(settings: &BTreeMap<String, ToolSetting>) -> Vec<ToolSchema> {
    BUILTIN.iter().filter(|name| is_enabled(settings, name)).filter_map(|name| schema(name)).collect()
}

fn is_enabled(settings: &BTreeMap<String, ToolSetting>, name: &str) -> bool {
    settings.get(name).is_none_or(|setting| setting.enabled)
}

/// Why a call of a tool is not made, told to the model; `None`: it may be made.
pub fn refusal(settings: &BTreeMap<String, ToolSetting>, name: &str) -> Option<String> {
    let setting = settings.get(name)?;
    match setting.permission {
        _ if !setting.enabled => Some(format!("The tool {name} is switched off for this agent.")),
        Permission::AlwaysAllow => None,
        Permission::Deny => {
            Some(format!("The tool {name} may not be used by this agent. Don't try it again."))
        }
        Permission::AlwaysAsk => Some(format!(
            "The tool {name} needs a person's approval, and nobody can be asked from here. Say what you would have done."
        )),
    }
}

fn schema(name: &str) -> Option<ToolSchema> {
    let path = json!({"type": "string", "description": "Path in the workspace, such as notes/todo.md."});
    let (description, properties, required) = match name {
        "shell" => (
            format!(
                "Run a command with sh -c in /workspace and get its output and exit status. It is ended after \
                 timeout_s seconds ({DEFAULT_TIMEOUT_S} unless said, at most {MAX_TIMEOUT_S})."
            ),
            json!({
                "command": {"type": "string"},
                "timeout_s": {"type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_S},
            }),
            json!(["command"]),
        ),
        "read_file" => (
            format!("Read a text file. Gives at most {DEFAULT_READ_LINES} lines unless limit says otherwise."),
            json!({
                "path": path,
                "offset": {"type": "integer", "minimum": 1, "description": "First line, from 1."},
                "limit": {"type": "integer", "minimum": 1, "description": "Most lines to give."},
            }),
            json!(["path"]),
        ),
        "write_file" => (
            "Write a whole file, replacing what was there; missing directories are made.".to_owned(),
            json!({"path": path, "content": {"type": "string"}}),
            json!(["path", "content"]),
        ),
        "edit_file" => (
            "Replace old_text by new_text in a file. old_text must occur exactly once, unless replace_all is true."
                .to_owned(),
            json!({
                "path": path,
                "old_text": {"type": "string"},
                "new_text": {"type": "string"},
                "replace_all": {"type": "boolean"},
            }),
            json!(["path", "old_text", "new_text"]),
        ),
        _ => return None,
    };
    let parameters = json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    Some(ToolSchema { name: name.to_owned(), description, parameters })
}

/// Understands a call.
///
/// # Errors
/// A sentence for the model: what is wrong with its call, and what the tool takes.
pub fn parse(call: &ToolCall) -> Result<ToolRequest, String> {
    let arguments = if call.arguments.trim().is_empty() { "{}" } else { call.arguments.as_str() };
    let parsed = match call.tool.as_str() {
        "shell" => serde_json::from_str(arguments).map(ToolRequest::Shell),
        "read_file" => serde_json::from_str(arguments).map(ToolRequest::ReadFile),
        "write_file" => serde_json::from_str(arguments).map(ToolRequest::WriteFile),
        "edit_file" => serde_json::from_str(arguments).map(ToolRequest::EditFile),
        unknown => return Err(unknown_tool(unknown)),
    };
    parsed.map_err(|error| {
        let schema = schema(&call.tool).map(|schema| schema.parameters.to_string()).unwrap_or_default();
        format!("The arguments are not what {} takes: {error}. Its schema: {schema}", call.tool)
    })
}

fn unknown_tool(name: &str) -> String {
    let nearest =
        BUILTIN.iter().min_by_key(|known| strsim::osa_distance(name, known)).copied().unwrap_or("shell");
    format!("There is no tool {name:?}. Did you mean {nearest}? The tools are: {}.", BUILTIN.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(tool: &str, arguments: &str) -> ToolCall {
        ToolCall { tool_call_id: "c".to_owned(), tool: tool.to_owned(), arguments: arguments.to_owned() }
    }

    #[test]
    fn every_tool_has_a_schema_and_all_together_stay_small() {
        let schemas = schemas(&BTreeMap::new());
        assert_eq!(schemas.len(), BUILTIN.len());
        let size: usize =
            schemas.iter().map(|s| s.name.len() + s.description.len() + s.parameters.to_string().len()).sum();
        assert!(size < 12 * 1024, "{size} bytes");
    }

    #[test]
    fn malformed_arguments_are_told_with_the_schema() {
        let message = parse(&call("shell", r#"{"command": "ls"#)).unwrap_err();
        assert!(message.contains("EOF") && message.contains(r#""required":["command"]"#), "{message}");
        let message = parse(&call("read_file", r#"{"file": "a"}"#)).unwrap_err();
        assert!(message.contains("unknown field `file`"), "{message}");
    }

    #[test]
    fn an_unknown_tool_is_told_with_the_nearest_name() {
        assert!(parse(&call("readfile", "{}")).unwrap_err().contains("Did you mean read_file?"));
    }

    #[test]
    fn a_tool_that_is_off_or_denied_is_not_used_and_one_that_is_off_not_shown() {
        let set =
            |enabled, permission| BTreeMap::from([("shell".to_owned(), ToolSetting { enabled, permission })]);
        let off = set(false, Permission::AlwaysAllow);
        assert!(schemas(&off).iter().all(|schema| schema.name != "shell"));
        assert!(refusal(&off, "shell").unwrap().contains("switched off"));
        assert_eq!(refusal(&off, "read_file"), None);
        for permission in [Permission::Deny, Permission::AlwaysAsk] {
            let set = set(true, permission);
            assert_eq!(schemas(&set).len(), BUILTIN.len());
            assert!(refusal(&set, "shell").is_some());
        }
        assert_eq!(refusal(&set(true, Permission::AlwaysAllow), "shell"), None);
    }

    #[test]
    fn only_calls_that_change_nothing_twice_are_repeated() {
        let effect = |tool, arguments| parse(&call(tool, arguments)).unwrap().effect();
        assert_eq!(effect("shell", r#"{"command":"rm x"}"#), Effect::Unsafe);
        assert_eq!(effect("edit_file", r#"{"path":"a","old_text":"b","new_text":"c"}"#), Effect::Unsafe);
        assert_eq!(effect("write_file", r#"{"path":"a","content":"b"}"#), Effect::Idempotent);
        assert_eq!(effect("read_file", r#"{"path":"a"}"#), Effect::Read);
    }
}
