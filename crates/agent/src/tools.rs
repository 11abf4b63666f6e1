//! The built-in tools: the schemas that the model receives, and the parsing of the model's tool calls.

use herm_types::deployment::DeploymentSettings;
use herm_types::model::{ToolCall, ToolSchema};
use herm_types::tool::{ASK_HUMAN, BUILTIN, Permission};
use serde::Deserialize;
use serde_json::json;

/// The timeout of a shell command that sets none, in seconds.
pub const DEFAULT_TIMEOUT_S: u64 = 120;
/// The maximum timeout of a shell command, in seconds.
pub const MAX_TIMEOUT_S: u64 = 1800;
/// The maximum number of tool calls in one reply of the model. Further calls are not made; their result is an
/// error that explains this.
pub const MAX_CALLS_PER_TURN: i64 = 32;
/// The maximum number of lines that `read_file` returns if the call sets no limit.
pub const DEFAULT_READ_LINES: usize = 2000;

/// The maximum number of suggested answers to an `ask_human` question. A call with more is rejected.
pub const MAX_OPTIONS: usize = 10;
/// The maximum total length of an `ask_human` question and its suggested answers, in characters. A longer
/// call is rejected.
pub const MAX_QUESTION_CHARS: usize = 10_000;

/// A tool call whose name and arguments are valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolRequest {
    Shell(Shell),
    ReadFile(ReadFile),
    WriteFile(WriteFile),
    EditFile(EditFile),
    AskHuman(AskHuman),
}

/// The effect of making the same tool call twice. It determines how the worker recovers a call whose result
/// was lost in a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The tool call changes nothing. After a crash it is made again.
    Read,
    /// Repeating the tool call has no further effect. After a crash it is made again.
    Idempotent,
    /// The tool call must not be repeated. After a crash, the worker asks the guest (the program that runs
    /// commands in the sandbox) for the result. If the guest has none, the model is told that the outcome is
    /// unknown.
    Unsafe,
}

/// The arguments of the tool `shell`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shell {
    pub command: String,
    /// The timeout in seconds, from 1 to [`MAX_TIMEOUT_S`]. If it is `None`, [`DEFAULT_TIMEOUT_S`] applies.
    pub timeout_s: Option<u64>,
}

/// The arguments of the tool `read_file`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadFile {
    pub path: String,
    /// The number of the first line to return, starting at 1. If it is `None`, reading begins at the first
    /// line.
    pub offset: Option<usize>,
    /// The maximum number of lines to return. If it is `None`, [`DEFAULT_READ_LINES`] applies.
    pub limit: Option<usize>,
}

/// The arguments of the tool `write_file`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteFile {
    pub path: String,
    pub content: String,
}

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

/// The arguments of the tool `ask_human`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskHuman {
    pub question: String,
    /// Suggested answers that the person can choose from. Other answers are possible too.
    #[serde(default)]
    pub options: Vec<String>,
}

impl ToolRequest {
    /// Returns the effect of repeating the tool call.
    pub fn effect(&self) -> Effect {
        match self {
            Self::ReadFile(_) | Self::AskHuman(_) => Effect::Read,
            Self::WriteFile(_) => Effect::Idempotent,
            Self::Shell(_) | Self::EditFile(_) => Effect::Unsafe,
        }
    }
}

/// Returns the schemas of all tools that the deployment can use and has enabled, always in the same order.
pub fn schemas(settings: &DeploymentSettings) -> Vec<ToolSchema> {
    let is_enabled = |name: &&&str| {
        is_available(settings, name) && settings.tools.get(**name).is_none_or(|setting| setting.enabled)
    };
    BUILTIN.iter().filter(is_enabled).filter_map(|name| schema(name)).collect()
}

/// Returns true if the deployment has the feature that a built-in tool requires: steering for `ask_human`,
/// and a sandbox for all other tools.
pub fn is_available(settings: &DeploymentSettings, name: &str) -> bool {
    if name == ASK_HUMAN { settings.features.steering } else { settings.sandbox.enabled }
}

/// If this deployment may not use the tool at all, returns a text that tells the model why. Returns `None` if
/// the tool can be called, possibly only after an approval.
pub fn refusal(settings: &DeploymentSettings, name: &str) -> Option<String> {
    if name == ASK_HUMAN && !is_available(settings, name) {
        return Some(
            "This agent may not ask a person. Decide as well as you can, or say what is undecided."
                .to_owned(),
        );
    }
    if BUILTIN.contains(&name) && !is_available(settings, name) {
        return Some(format!("The tool {name} is not available: this agent has no sandbox."));
    }
    let setting = settings.tools.get(name)?;
    if !setting.enabled {
        return Some(format!("The tool {name} is switched off for this agent."));
    }
    (setting.permission == Permission::Deny)
        .then(|| format!("The tool {name} may not be used by this agent. Do not call it again."))
}

fn schema(name: &str) -> Option<ToolSchema> {
    let path = json!({"type": "string", "description": "Path in the workspace, for example notes/todo.md."});
    let (description, properties, required) = match name {
        "shell" => (
            format!(
                "Run a command with sh -c in /workspace and return its output and exit status. The command is \
                 killed after timeout_s seconds (default {DEFAULT_TIMEOUT_S}, maximum {MAX_TIMEOUT_S})."
            ),
            json!({
                "command": {"type": "string"},
                "timeout_s": {"type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_S},
            }),
            json!(["command"]),
        ),
        "read_file" => (
            format!("Read a text file. Returns at most limit lines (default {DEFAULT_READ_LINES})."),
            json!({
                "path": path,
                "offset": {"type": "integer", "minimum": 1, "description": "First line to return, starting at 1."},
                "limit": {"type": "integer", "minimum": 1, "description": "Maximum number of lines."},
            }),
            json!(["path"]),
        ),
        "write_file" => (
            "Write a file, replacing its content if it exists. Missing directories are created.".to_owned(),
            json!({"path": path, "content": {"type": "string"}}),
            json!(["path", "content"]),
        ),
        "edit_file" => (
            "Replace old_text with new_text in a file. old_text must occur exactly once, unless replace_all is true."
                .to_owned(),
            json!({
                "path": path,
                "old_text": {"type": "string"},
                "new_text": {"type": "string"},
                "replace_all": {"type": "boolean"},
            }),
            json!(["path", "old_text", "new_text"]),
        ),
        ASK_HUMAN => (
            format!(
                "Ask a person and wait for the answer, which can take days. Use it only for what you cannot find \
                 out or decide yourself. options: up to {MAX_OPTIONS} short suggested answers; the person may \
                 answer something else."
            ),
            json!({
                "question": {"type": "string"},
                "options": {"type": "array", "items": {"type": "string"}, "maxItems": MAX_OPTIONS},
            }),
            json!(["question"]),
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

/// Parses and validates a tool call.
///
/// # Errors
/// Returns a text for the model that explains the error and contains the schema of the tool.
pub fn parse(call: &ToolCall) -> Result<ToolRequest, String> {
    let arguments = if call.arguments.trim().is_empty() { "{}" } else { call.arguments.as_str() };
    let parsed = match call.tool.as_str() {
        "shell" => serde_json::from_str(arguments).map(ToolRequest::Shell),
        "read_file" => serde_json::from_str(arguments).map(ToolRequest::ReadFile),
        "write_file" => serde_json::from_str(arguments).map(ToolRequest::WriteFile),
        "edit_file" => serde_json::from_str(arguments).map(ToolRequest::EditFile),
        ASK_HUMAN => serde_json::from_str(arguments).and_then(check_question).map(ToolRequest::AskHuman),
        unknown => return Err(unknown_tool(unknown)),
    };
    parsed.map_err(|error| {
        let schema = schema(&call.tool).map(|schema| schema.parameters.to_string()).unwrap_or_default();
        format!("Invalid arguments for {}: {error}. The schema of the arguments: {schema}", call.tool)
    })
}

fn check_question(question: AskHuman) -> Result<AskHuman, serde_json::Error> {
    let chars = |text: &String| text.chars().count();
    let error = if question.question.trim().is_empty() {
        "`question` must not be empty".to_owned()
    } else if question.options.len() > MAX_OPTIONS {
        format!("`options` must have at most {MAX_OPTIONS} entries")
    } else if chars(&question.question) + question.options.iter().map(chars).sum::<usize>()
        > MAX_QUESTION_CHARS
    {
        format!("`question` and `options` together must have at most {MAX_QUESTION_CHARS} characters")
    } else {
        return Ok(question);
    };
    Err(serde::de::Error::custom(error))
}

fn unknown_tool(name: &str) -> String {
    let nearest =
        BUILTIN.iter().min_by_key(|known| strsim::osa_distance(name, known)).copied().unwrap_or("shell");
    format!("Unknown tool {name:?}. Did you mean {nearest}? The tools are: {}.", BUILTIN.join(", "))
}

#[cfg(test)]
mod tests {
    use herm_types::sandbox::{SandboxSettings, SandboxType};
    use herm_types::tool::ToolSetting;

    use super::*;

    fn settings() -> DeploymentSettings {
        DeploymentSettings::new(SandboxSettings::new(SandboxType::Local, Some(SandboxType::Local)))
    }

    fn call(tool: &str, arguments: &str) -> ToolCall {
        ToolCall { tool_call_id: "c".to_owned(), tool: tool.to_owned(), arguments: arguments.to_owned() }
    }

    #[test]
    fn every_tool_has_a_schema_and_their_total_size_is_bounded() {
        let schemas = schemas(&settings());
        assert_eq!(schemas.len(), BUILTIN.len());
        let size: usize =
            schemas.iter().map(|s| s.name.len() + s.description.len() + s.parameters.to_string().len()).sum();
        assert!(size < 12 * 1024, "{size} bytes");
    }

    #[test]
    fn the_error_for_invalid_arguments_contains_the_schema() {
        let message = parse(&call("shell", r#"{"command": "ls"#)).unwrap_err();
        assert!(message.contains("EOF") && message.contains(r#""required":["command"]"#), "{message}");
        let message = parse(&call("read_file", r#"{"file": "a"}"#)).unwrap_err();
        assert!(message.contains("unknown field `file`"), "{message}");
    }

    #[test]
    fn the_error_for_an_unknown_tool_suggests_the_nearest_name() {
        assert!(parse(&call("readfile", "{}")).unwrap_err().contains("Did you mean read_file?"));
    }

    #[test]
    fn a_disabled_or_denied_tool_is_refused_and_a_disabled_one_has_no_schema() {
        let set = |enabled, permission| {
            let mut settings = settings();
            settings.tools.insert("shell".to_owned(), ToolSetting { enabled, permission });
            settings
        };
        let off = set(false, Permission::AlwaysAllow);
        assert!(schemas(&off).iter().all(|schema| schema.name != "shell"));
        assert!(refusal(&off, "shell").unwrap().contains("switched off"));
        assert_eq!(refusal(&off, "read_file"), None);
        let denied = set(true, Permission::Deny);
        assert_eq!(schemas(&denied).len(), BUILTIN.len());
        assert!(refusal(&denied, "shell").is_some());
        assert_eq!(refusal(&set(true, Permission::AlwaysAsk), "shell"), None);
    }

    #[test]
    fn without_a_sandbox_only_ask_human_is_available() {
        let mut settings = settings();
        settings.sandbox.enabled = false;
        let names = |settings: &DeploymentSettings| -> Vec<String> {
            schemas(settings).into_iter().map(|schema| schema.name).collect()
        };
        assert_eq!(names(&settings), [ASK_HUMAN]);
        assert!(refusal(&settings, "shell").unwrap().contains("no sandbox"));
        settings.features.steering = false;
        assert!(names(&settings).is_empty());
        assert!(refusal(&settings, ASK_HUMAN).unwrap().contains("may not ask"));
    }

    #[test]
    fn a_question_beyond_a_limit_is_rejected() {
        let ask = |arguments: serde_json::Value| parse(&call(ASK_HUMAN, &arguments.to_string()));
        assert!(ask(json!({"question": "Which?", "options": ["a", "b"]})).is_ok());
        for invalid in [
            json!({"question": " "}),
            json!({"question": "a", "options": vec!["x"; MAX_OPTIONS + 1]}),
            json!({"question": "a".repeat(MAX_QUESTION_CHARS + 1)}),
        ] {
            assert!(ask(invalid).unwrap_err().contains("question"));
        }
    }

    #[test]
    fn each_tool_has_its_effect_class() {
        let effect = |tool, arguments| parse(&call(tool, arguments)).unwrap().effect();
        assert_eq!(effect("shell", r#"{"command":"rm x"}"#), Effect::Unsafe);
        assert_eq!(effect("edit_file", r#"{"path":"a","old_text":"b","new_text":"c"}"#), Effect::Unsafe);
        assert_eq!(effect("write_file", r#"{"path":"a","content":"b"}"#), Effect::Idempotent);
        assert_eq!(effect("read_file", r#"{"path":"a"}"#), Effect::Read);
    }
}
