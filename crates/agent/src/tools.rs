//! The built-in tools: how a model is told of them, and what its calls mean.

use herm_types::deployment::DeploymentSettings;
use herm_types::model::{ToolCall, ToolSchema};
use herm_types::tool::{ASK_HUMAN, BUILTIN, Permission};
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

/// Answers that a question may suggest.
pub const MAX_OPTIONS: usize = 10;
/// Characters of a question, and of all its options together.
pub const MAX_QUESTION_CHARS: usize = 10_000;

/// A tool call that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolRequest {
    Shell(Shell),
    ReadFile(ReadFile),
    WriteFile(WriteFile),
    EditFile(EditFile),
    AskHuman(AskHuman),
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

/// A question to a person.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskHuman {
    pub question: String,
    /// Answers that the agent suggests.
    #[serde(default)]
    pub options: Vec<String>,
}

impl ToolRequest {
    pub fn effect(&self) -> Effect {
        match self {
            Self::ReadFile(_) | Self::AskHuman(_) => Effect::Read,
            Self::WriteFile(_) => Effect::Idempotent,
            Self::Shell(_) | Self::EditFile(_) => Effect::Unsafe,
        }
    }
}

/// The tools that an agent has and that are enabled, as a model is told of them, always in this order.
pub fn schemas(settings: &DeploymentSettings) -> Vec<ToolSchema> {
    let shown = |name: &&&str| {
        has(settings, name) && settings.tools.get(**name).is_none_or(|setting| setting.enabled)
    };
    BUILTIN.iter().filter(shown).filter_map(|name| schema(name)).collect()
}

/// Whether an agent has a built-in tool: what acts in a sandbox takes one, and who asks must be allowed to.
pub fn has(settings: &DeploymentSettings, name: &str) -> bool {
    if name == ASK_HUMAN { settings.features.steering } else { settings.sandbox.enabled }
}

/// Why no call of a tool is made, told to the model; `None`: one may be made, perhaps after a person was asked.
pub fn refusal(settings: &DeploymentSettings, name: &str) -> Option<String> {
    if name == ASK_HUMAN && !has(settings, name) {
        return Some(
            "This agent may not ask a person. Decide as best you can, or say what is open.".to_owned(),
        );
    }
    if BUILTIN.contains(&name) && !has(settings, name) {
        return Some(format!("This agent has no sandbox, and so no {name}."));
    }
    let setting = settings.tools.get(name)?;
    if !setting.enabled {
        return Some(format!("The tool {name} is switched off for this agent."));
    }
    (setting.permission == Permission::Deny)
        .then(|| format!("The tool {name} may not be used by this agent. Don't try it again."))
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
        ASK_HUMAN => (
            format!(
                "Ask a person and wait for the answer, be it days. Only for what you cannot find out or decide \
                 yourself. options: up to {MAX_OPTIONS} short answers to choose from; any other may be given."
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
        ASK_HUMAN => serde_json::from_str(arguments).and_then(check_question).map(ToolRequest::AskHuman),
        unknown => return Err(unknown_tool(unknown)),
    };
    parsed.map_err(|error| {
        let schema = schema(&call.tool).map(|schema| schema.parameters.to_string()).unwrap_or_default();
        format!("The arguments are not what {} takes: {error}. Its schema: {schema}", call.tool)
    })
}

fn check_question(question: AskHuman) -> Result<AskHuman, serde_json::Error> {
    let chars = |text: &String| text.chars().count();
    let fault = if question.question.trim().is_empty() {
        "question is empty".to_owned()
    } else if question.options.len() > MAX_OPTIONS {
        format!("there are more than {MAX_OPTIONS} options")
    } else if chars(&question.question) + question.options.iter().map(chars).sum::<usize>()
        > MAX_QUESTION_CHARS
    {
        format!("question and options have more than {MAX_QUESTION_CHARS} characters")
    } else {
        return Ok(question);
    };
    Err(serde::de::Error::custom(fault))
}

fn unknown_tool(name: &str) -> String {
    let nearest =
        BUILTIN.iter().min_by_key(|known| strsim::osa_distance(name, known)).copied().unwrap_or("shell");
    format!("There is no tool {name:?}. Did you mean {nearest}? The tools are: {}.", BUILTIN.join(", "))
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
    fn every_tool_has_a_schema_and_all_together_stay_small() {
        let schemas = schemas(&settings());
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
    fn without_a_sandbox_an_agent_can_only_ask_and_without_steering_not_even_that() {
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
    fn a_question_is_bounded() {
        let ask = |arguments: serde_json::Value| parse(&call(ASK_HUMAN, &arguments.to_string()));
        assert!(ask(json!({"question": "Which?", "options": ["a", "b"]})).is_ok());
        for wrong in [
            json!({"question": " "}),
            json!({"question": "a", "options": vec!["x"; MAX_OPTIONS + 1]}),
            json!({"question": "a".repeat(MAX_QUESTION_CHARS + 1)}),
        ] {
            assert!(ask(wrong).unwrap_err().contains("question"));
        }
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
