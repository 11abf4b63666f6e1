//! Permission checks of tool calls, and the effects of steering requests on tool calls.

use herm_types::deployment::{DeploymentSettings, OnExpiry};
use herm_types::model::{ToolCall, ToolOutcome};
use herm_types::run::RunError;
use herm_types::steering::{
    SteeringAnswer, SteeringDecision, SteeringKind, SteeringOutcome, SteeringRequest,
};
use herm_types::tool::Permission;

use crate::danger;
use crate::tools::{self, ToolRequest};

/// The maximum length of the command or arguments in the summary of a steering request, in characters. Longer
/// ones are truncated. The `arguments` of the steering request contain the whole tool call.
const MAX_SUMMARY_CHARS: usize = 500;

/// The result of the permission check of a tool call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PermissionDecision {
    /// The tool call may be made.
    Allow,
    /// The tool call is not made. The model receives this text as the result.
    Deny(String),
    /// A person must first approve the tool call or answer its question. If an earlier approval covers the
    /// call, the call may be made without asking again.
    Ask(RequestContent),
}

/// The content of a steering request that is to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestContent {
    pub kind: SteeringKind,
    pub summary: String,
    pub options: Vec<String>,
}

/// Decides if a tool call may be made, must not be made, or requires asking a person.
pub fn check_permission(settings: &DeploymentSettings, call: &ToolCall) -> PermissionDecision {
    if let Some(text) = tools::refusal(settings, &call.tool) {
        return PermissionDecision::Deny(text);
    }
    let request = match tools::parse(call) {
        Ok(request) => request,
        Err(text) => return PermissionDecision::Deny(text),
    };
    if let ToolRequest::AskHuman(question) = request {
        let (summary, options) = (question.question, question.options);
        return PermissionDecision::Ask(RequestContent { kind: SteeringKind::Question, summary, options });
    }
    let permission = settings.tools.get(&call.tool).map(|setting| setting.permission);
    let finding = match &request {
        ToolRequest::Shell(shell) => danger::analyze(&shell.command),
        _ => None,
    };
    let (title, refusal) = match (finding, permission) {
        (Some(finding), _) => (
            format!("Run a potentially dangerous command: {}. The command: ", finding.reason),
            format!(
                "The command was not run. It was judged dangerous because {}, and this agent may not ask a person. \
                 Find another way, or describe what you would have done.",
                finding.reason
            ),
        ),
        (None, Some(Permission::AlwaysAsk)) => (
            match &request {
                ToolRequest::Shell(_) => "Run a command: ".to_owned(),
                _ => format!("Use {} with: ", call.tool),
            },
            format!(
                "The tool {} needs a person's approval, and this agent may not ask a person. Describe what you \
                 would have done.",
                call.tool
            ),
        ),
        (None, _) => return PermissionDecision::Allow,
    };
    if !settings.features.steering {
        return PermissionDecision::Deny(refusal);
    }
    let details = match &request {
        ToolRequest::Shell(shell) => &shell.command,
        _ => &call.arguments,
    };
    PermissionDecision::Ask(RequestContent {
        kind: SteeringKind::Approval,
        summary: title + &sanitize(details),
        options: Vec::new(),
    })
}

/// Converts text from a model to a single line that is safe to show to a person. Replaces characters that
/// could hide or reorder the text around them.
fn sanitize(text: &str) -> String {
    let mut chars = text.chars();
    let visible = |c: char| match c {
        '\n' | '\t' => ' ',
        // Zero-width characters and characters that change the direction of the text.
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => {
            '\u{fffd}'
        }
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    let mut line: String = chars.by_ref().take(MAX_SUMMARY_CHARS).map(visible).collect();
    if chars.next().is_some() {
        line.push('…');
    }
    line
}

/// The effect of a steering request on its tool call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The steering request has no outcome yet, so the tool call waits.
    Pending,
    /// The tool call is made. `arguments` replaces its arguments if a person has edited them. `note` is a
    /// text for the model that is added to the result.
    Execute { arguments: Option<String>, note: Option<String> },
    /// The tool call is not made, and this is its result.
    Skip(ToolOutcome),
    /// The run fails with this error.
    Fail(RunError),
}

/// Returns the effect of a steering request on its tool call. `on_expiry` is the deployment's setting for
/// expired requests.
pub fn settle(request: &SteeringRequest, on_expiry: OnExpiry) -> Settlement {
    match (request.outcome, &request.answer) {
        (None, _) => Settlement::Pending,
        (Some(SteeringOutcome::Expired), _) => settle_expired(request.kind, on_expiry),
        (Some(_), Some(answer)) => settle_answered(request.kind, answer),
        // A request that has an outcome, but has neither expired nor been answered, was cancelled because its
        // run ended.
        (Some(_), None) => skip("Cancelled: the run was stopped before a person answered.", true),
    }
}

fn skip(text: impl Into<String>, is_error: bool) -> Settlement {
    Settlement::Skip(ToolOutcome { text: text.into(), is_error })
}

fn settle_answered(kind: SteeringKind, answer: &SteeringAnswer) -> Settlement {
    let message = answer.message.as_deref();
    match (answer.decision, kind) {
        (SteeringDecision::Answer, _) => skip(message.unwrap_or_default(), false),
        (SteeringDecision::Approve, _) => {
            let arguments = answer.arguments.as_ref().map(ToString::to_string);
            let changed = arguments.as_ref().map(|arguments| {
                format!(
                    "[A person approved this call with different arguments. It was made with: {arguments}]"
                )
            });
            let comment =
                message.map(|message| format!("[The person who approved this call says: {message}]"));
            let note: Vec<String> = changed.into_iter().chain(comment).collect();
            Settlement::Execute { arguments, note: (!note.is_empty()).then(|| note.join("\n")) }
        }
        (SteeringDecision::Deny, SteeringKind::Question) => {
            let reason = message.map(|message| format!(" They wrote: {message}")).unwrap_or_default();
            skip(format!("The person declined to answer.{reason}"), true)
        }
        (SteeringDecision::Deny, SteeringKind::Approval) => {
            let reason = message.map(|message| format!(" The reason: {message}")).unwrap_or_default();
            skip(
                format!(
                    "A person denied this call, so it was not made.{reason} Do not try to do the same in another way."
                ),
                true,
            )
        }
    }
}

fn settle_expired(kind: SteeringKind, on_expiry: OnExpiry) -> Settlement {
    match (on_expiry, kind) {
        (OnExpiry::Fail, _) => Settlement::Fail(RunError {
            code: "steering_expired".to_owned(),
            message: "The run waited for a person, but nobody answered in time.".to_owned(),
        }),
        (OnExpiry::Approve, SteeringKind::Approval) => Settlement::Execute {
            arguments: None,
            note: Some("[Nobody answered in time. The call was made because the deployment approves requests on expiry.]".to_owned()),
        },
        (OnExpiry::Deny, SteeringKind::Approval) => {
            skip("Nobody approved this call in time, so it was not made. Continue without it.", true)
        }
        (OnExpiry::Approve | OnExpiry::Deny, SteeringKind::Question) => {
            skip("Nobody answered in time. Continue without an answer as well as you can.", true)
        }
    }
}

/// The messages that approve a tool call. Case and punctuation are ignored in the comparison.
const APPROVALS: [&str; 6] = ["yes", "ok", "approve", "approved", "go ahead", "yes go ahead"];

/// Interprets a user message as the answer to a steering request. For an approval request, a message that is
/// one of `APPROVALS` approves the tool call, and any other message denies it.
pub fn parse_answer(kind: SteeringKind, text: &str) -> SteeringAnswer {
    let (decision, message) = match kind {
        SteeringKind::Question => (SteeringDecision::Answer, Some(text.to_owned())),
        SteeringKind::Approval if is_approval(text) => (SteeringDecision::Approve, None),
        SteeringKind::Approval => (SteeringDecision::Deny, Some(text.to_owned())),
    };
    SteeringAnswer { decision, message, arguments: None, remember: Default::default() }
}

fn is_approval(text: &str) -> bool {
    let plain: String = text
        .chars()
        .flat_map(char::to_lowercase)
        .map(|c| if c.is_ascii_punctuation() || matches!(c, '…' | '’' | '“' | '”') { ' ' } else { c })
        .collect();
    let words: Vec<&str> = plain.split_whitespace().collect();
    APPROVALS.contains(&words.join(" ").as_str())
}

/// Checks the arguments of a tool call that a person has edited against the schema of the tool.
///
/// # Errors
/// Returns a sentence that explains the error in the arguments.
pub fn check_arguments(tool: &str, arguments: &serde_json::Value) -> Result<(), String> {
    let call =
        ToolCall { tool_call_id: String::new(), tool: tool.to_owned(), arguments: arguments.to_string() };
    tools::parse(&call).map(|_| ())
}

/// Returns a string that is equal for equivalent tool calls. For `shell` it contains the command but not the
/// timeout. For other tools it contains all arguments, independent of JSON whitespace and field order.
pub fn canonical_call(tool: &str, arguments: &str) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(arguments).ok();
    let command = parsed.as_ref().and_then(|value| value.get("command")).and_then(|value| value.as_str());
    match (tool, command, parsed.as_ref()) {
        ("shell", Some(command), _) => format!("shell\n{command}"),
        (_, _, Some(value)) => format!("{tool}\n{}", sorted_json(value)),
        _ => format!("{tool}\n{arguments}"),
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
    use herm_types::sandbox::{SandboxSettings, SandboxType};
    use herm_types::tool::{ASK_HUMAN, ToolSetting};
    use serde_json::json;

    use super::*;

    fn call(tool: &str, arguments: &serde_json::Value) -> ToolCall {
        ToolCall { tool_call_id: "c".to_owned(), tool: tool.to_owned(), arguments: arguments.to_string() }
    }

    fn settings(tool: &str, permission: Permission) -> DeploymentSettings {
        let mut settings =
            DeploymentSettings::new(SandboxSettings::new(SandboxType::Local, Some(SandboxType::Local)));
        settings.tools.insert(tool.to_owned(), ToolSetting { enabled: true, permission });
        settings
    }

    #[test]
    fn a_call_is_allowed_asked_about_or_denied_by_its_permission() {
        let read = call("read_file", &json!({"path": "a"}));
        assert_eq!(
            check_permission(&settings("shell", Permission::AlwaysAsk), &read),
            PermissionDecision::Allow
        );
        let PermissionDecision::Ask(ask) =
            check_permission(&settings("read_file", Permission::AlwaysAsk), &read)
        else {
            panic!()
        };
        assert_eq!(ask.kind, SteeringKind::Approval);
        assert_eq!(ask.summary, r#"Use read_file with: {"path":"a"}"#);
        let denied = check_permission(&settings("read_file", Permission::Deny), &read);
        assert!(matches!(denied, PermissionDecision::Deny(text) if text.contains("may not be used")));
    }

    #[test]
    fn a_dangerous_command_needs_an_approval_and_is_denied_without_steering() {
        let mut settings =
            DeploymentSettings::new(SandboxSettings::new(SandboxType::Local, Some(SandboxType::Local)));
        let wipe = call("shell", &json!({"command": "rm -rf /workspace"}));
        let PermissionDecision::Ask(ask) = check_permission(&settings, &wipe) else { panic!() };
        assert!(ask.summary.ends_with("rm -rf /workspace"), "{}", ask.summary);
        assert_eq!(
            check_permission(&settings, &call("shell", &json!({"command": "ls"}))),
            PermissionDecision::Allow
        );
        settings.features.steering = false;
        assert!(
            matches!(check_permission(&settings, &wipe), PermissionDecision::Deny(text) if text.contains("judged dangerous"))
        );
        let ask = call(ASK_HUMAN, &json!({"question": "Which?"}));
        assert!(matches!(check_permission(&settings, &ask), PermissionDecision::Deny(_)));
    }

    #[test]
    fn invisible_characters_are_replaced_in_a_summary() {
        let text = format!("a\u{202e}b\u{200b}c\nd\u{1b}[2Ke{}", "x".repeat(600));
        let line = sanitize(&text);
        assert!(line.starts_with("a\u{fffd}b\u{fffd}c d\u{fffd}[2Kex"), "{line}");
        assert!(line.ends_with('…') && line.chars().count() == MAX_SUMMARY_CHARS + 1);
    }

    #[test]
    fn a_message_approves_only_if_it_says_nothing_else() {
        for text in
            ["yes", "Yes!", " OK. ", "approve", "Approved", "go ahead", "Yes, go ahead.", "YES GO AHEAD"]
        {
            let answer = parse_answer(SteeringKind::Approval, text);
            assert_eq!((answer.decision, answer.message), (SteeringDecision::Approve, None), "{text}");
        }
        for text in ["yes but not now", "no", "", "okay then", "yesterday", "don't approve", "y e s"] {
            let answer = parse_answer(SteeringKind::Approval, text);
            assert_eq!((answer.decision, answer.message.as_deref()), (SteeringDecision::Deny, Some(text)));
        }
        let answer = parse_answer(SteeringKind::Question, "yes");
        assert_eq!((answer.decision, answer.message.as_deref()), (SteeringDecision::Answer, Some("yes")));
    }

    #[test]
    fn equivalent_calls_have_the_same_canonical_form() {
        let key = |tool: &str, arguments: &str| canonical_call(tool, arguments);
        assert_eq!(
            key("a", r#"{"x":1, "y":{"b":2,"a":[1, 2]}}"#),
            key("a", r#"{"y":{"a":[1,2],"b":2},"x":1}"#)
        );
        assert_eq!(key("shell", r#"{"command":"ls"}"#), key("shell", r#"{"command":"ls","timeout_s":9}"#));
        assert_ne!(key("shell", r#"{"command":"ls"}"#), key("shell", r#"{"command":"ls "}"#));
        assert_ne!(key("a", r#"{"x":[1,2]}"#), key("a", r#"{"x":[2,1]}"#));
        assert_ne!(key("a", r#"{"x":1}"#), key("b", r#"{"x":1}"#));
        assert_ne!(key("a", r#"{"x":"1"}"#), key("a", r#"{"x":1}"#));
    }
}
