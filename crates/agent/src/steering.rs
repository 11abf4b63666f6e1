//! Which tool calls a person is asked about first, and what becomes of a call when a person, or nobody, answered.

use herm_types::deployment::{DeploymentSettings, OnExpiry};
use herm_types::model::{ToolCall, ToolOutcome};
use herm_types::run::RunError;
use herm_types::steering::{
    SteeringAnswer, SteeringDecision, SteeringKind, SteeringOutcome, SteeringRequest,
};
use herm_types::tool::Permission;

use crate::danger;
use crate::tools::{self, ToolRequest};

/// Characters of a call that are told in a summary; the whole of it is in the request's arguments.
const MAX_SUMMARY_CHARS: usize = 500;

/// Whether a call that has not been begun is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    Go,
    /// It is not made, and the model is told this.
    Refuse(String),
    /// A person is asked first. An approval that stands is as good as their word.
    Ask(Ask),
}

/// What a person is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub kind: SteeringKind,
    pub summary: String,
    pub options: Vec<String>,
}

/// Looks at a call before it is made.
pub fn gate(settings: &DeploymentSettings, call: &ToolCall) -> Gate {
    if let Some(text) = tools::refusal(settings, &call.tool) {
        return Gate::Refuse(text);
    }
    let request = match tools::parse(call) {
        Ok(request) => request,
        Err(text) => return Gate::Refuse(text),
    };
    if let ToolRequest::AskHuman(question) = request {
        let (summary, options) = (question.question, question.options);
        return Gate::Ask(Ask { kind: SteeringKind::Question, summary, options });
    }
    let permission = settings.tools.get(&call.tool).map(|setting| setting.permission);
    let danger = match &request {
        ToolRequest::Shell(shell) => danger::judge(&shell.command),
        _ => None,
    };
    let (why, refusal) = match (danger, permission) {
        (Some(danger), _) => (
            format!("Run a command that may do harm: {}. The command: ", danger.reason),
            format!(
                "The command was not run: it was judged dangerous, as {}, and this agent may not ask a person. Do \
                 it in another way, or say what you would have done.",
                danger.reason
            ),
        ),
        (None, Some(Permission::AlwaysAsk)) => (
            match &request {
                ToolRequest::Shell(_) => "Run a command: ".to_owned(),
                _ => format!("Use {} with: ", call.tool),
            },
            format!(
                "The tool {} needs a person's approval, and this agent may not ask a person. Say what you would \
                 have done.",
                call.tool
            ),
        ),
        (None, _) => return Gate::Go,
    };
    if !settings.features.steering {
        return Gate::Refuse(refusal);
    }
    let what = match &request {
        ToolRequest::Shell(shell) => &shell.command,
        _ => &call.arguments,
    };
    Gate::Ask(Ask { kind: SteeringKind::Approval, summary: why + &shown(what), options: Vec::new() })
}

/// A model's text as a person is shown it in one line: nothing in it can hide or reorder what stands beside it.
fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let visible = |c: char| match c {
        '\n' | '\t' => ' ',
        // Zero widths, and marks that change the direction of what follows.
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => {
            '\u{fffd}'
        }
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    let mut shown: String = chars.by_ref().take(MAX_SUMMARY_CHARS).map(visible).collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

/// What becomes of a call that a person was asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Nobody has answered yet.
    Pending,
    /// It is made, with these arguments if there are any; the note is told with its result.
    Make { arguments: Option<String>, note: Option<String> },
    /// It is not made; this is its result.
    Say(ToolOutcome),
    /// The run fails.
    Fail(RunError),
}

/// What a request's end means for its call. `on_expiry`: as its deployment says.
pub fn settle(request: &SteeringRequest, on_expiry: OnExpiry) -> Settlement {
    match (request.outcome, &request.answer) {
        (None, _) => Settlement::Pending,
        (Some(SteeringOutcome::Expired), _) => settle_expired(request.kind, on_expiry),
        (Some(_), Some(answer)) => settle_answered(request.kind, answer),
        // Its run has ended, and nothing is made for it any more.
        (Some(_), None) => say("Cancelled: the run was stopped before anybody answered.", true),
    }
}

fn say(text: impl Into<String>, is_error: bool) -> Settlement {
    Settlement::Say(ToolOutcome { text: text.into(), is_error })
}

fn settle_answered(kind: SteeringKind, answer: &SteeringAnswer) -> Settlement {
    let message = answer.message.as_deref();
    match (answer.decision, kind) {
        (SteeringDecision::Answer, _) => say(message.unwrap_or_default(), false),
        (SteeringDecision::Approve, _) => {
            let arguments = answer.arguments.as_ref().map(ToString::to_string);
            let changed = arguments.as_ref().map(|arguments| {
                format!("[A person approved this call with other arguments; it was made with: {arguments}]")
            });
            let said = message.map(|message| format!("[The person who approved it says: {message}]"));
            let note: Vec<String> = changed.into_iter().chain(said).collect();
            Settlement::Make { arguments, note: (!note.is_empty()).then(|| note.join("\n")) }
        }
        (SteeringDecision::Deny, SteeringKind::Question) => {
            let reason = message.map(|message| format!(" They say: {message}")).unwrap_or_default();
            say(format!("The person gives no answer.{reason}"), true)
        }
        (SteeringDecision::Deny, SteeringKind::Approval) => {
            let reason = message.map(|message| format!(" The reason: {message}")).unwrap_or_default();
            say(
                format!("A person denied this call: it was not made.{reason} Don't try it in another way."),
                true,
            )
        }
    }
}

fn settle_expired(kind: SteeringKind, on_expiry: OnExpiry) -> Settlement {
    match (on_expiry, kind) {
        (OnExpiry::Fail, _) => Settlement::Fail(RunError {
            code: "steering_expired".to_owned(),
            message: "The run waited for a person, and nobody answered in time.".to_owned(),
        }),
        (OnExpiry::Approve, SteeringKind::Approval) => Settlement::Make {
            arguments: None,
            note: Some("[Nobody answered in time; as was decided beforehand, the call was made.]".to_owned()),
        },
        (OnExpiry::Deny, SteeringKind::Approval) => {
            say("Nobody approved this call in time: it was not made. Go on without it.", true)
        }
        (OnExpiry::Approve | OnExpiry::Deny, SteeringKind::Question) => {
            say("Nobody answered in time. Go on without an answer, as best you can.", true)
        }
    }
}

/// What one may write to approve a call by a message, case and punctuation aside.
const APPROVALS: [&str; 6] = ["yes", "ok", "approve", "approved", "go ahead", "yes go ahead"];

/// Reads a message as the answer to a request. An approval is one only if it says nothing else.
pub fn read_answer(kind: SteeringKind, text: &str) -> SteeringAnswer {
    let (decision, message) = match kind {
        SteeringKind::Question => (SteeringDecision::Answer, Some(text.to_owned())),
        SteeringKind::Approval if approves(text) => (SteeringDecision::Approve, None),
        SteeringKind::Approval => (SteeringDecision::Deny, Some(text.to_owned())),
    };
    SteeringAnswer { decision, message, arguments: None, remember: Default::default() }
}

fn approves(text: &str) -> bool {
    let plain: String = text
        .chars()
        .flat_map(char::to_lowercase)
        .map(|c| if c.is_ascii_punctuation() || matches!(c, '…' | '’' | '“' | '”') { ' ' } else { c })
        .collect();
    let words: Vec<&str> = plain.split_whitespace().collect();
    APPROVALS.contains(&words.join(" ").as_str())
}

/// Whether these arguments, which a person wrote, are what the tool takes.
///
/// # Errors
/// A sentence: what is wrong with them.
pub fn check_arguments(tool: &str, arguments: &serde_json::Value) -> Result<(), String> {
    let call =
        ToolCall { tool_call_id: String::new(), tool: tool.to_owned(), arguments: arguments.to_string() };
    tools::parse(&call).map(|_| ())
}

/// A text that is the same for calls that do the same: of `shell` the command, of other tools all arguments,
/// however they are spaced and in whatever order.
pub fn call_key(tool: &str, arguments: &str) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(arguments).ok();
    let command = parsed.as_ref().and_then(|value| value.get("command")).and_then(|value| value.as_str());
    match (tool, command, parsed.as_ref()) {
        ("shell", Some(command), _) => format!("shell\n{command}"),
        (_, _, Some(value)) => format!("{tool}\n{}", sorted(value)),
        _ => format!("{tool}\n{arguments}"),
    }
}

/// JSON with the names of each object in order.
fn sorted(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let fields: std::collections::BTreeMap<&str, String> =
                map.iter().map(|(name, value)| (name.as_str(), sorted(value))).collect();
            let fields: Vec<String> =
                fields.into_iter().map(|(name, value)| format!("{}:{value}", Value::from(name))).collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(sorted).collect::<Vec<_>>().join(",")),
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
    fn an_ordinary_call_goes_and_one_that_needs_a_person_asks() {
        let read = call("read_file", &json!({"path": "a"}));
        assert_eq!(gate(&settings("shell", Permission::AlwaysAsk), &read), Gate::Go);
        let Gate::Ask(ask) = gate(&settings("read_file", Permission::AlwaysAsk), &read) else { panic!() };
        assert_eq!(ask.kind, SteeringKind::Approval);
        assert_eq!(ask.summary, r#"Use read_file with: {"path":"a"}"#);
        let denied = gate(&settings("read_file", Permission::Deny), &read);
        assert!(matches!(denied, Gate::Refuse(text) if text.contains("may not be used")));
    }

    #[test]
    fn a_dangerous_command_is_asked_about_and_without_steering_refused_with_the_reason() {
        let mut settings =
            DeploymentSettings::new(SandboxSettings::new(SandboxType::Local, Some(SandboxType::Local)));
        let wipe = call("shell", &json!({"command": "rm -rf /workspace"}));
        let Gate::Ask(ask) = gate(&settings, &wipe) else { panic!() };
        assert!(ask.summary.ends_with("rm -rf /workspace"), "{}", ask.summary);
        assert_eq!(gate(&settings, &call("shell", &json!({"command": "ls"}))), Gate::Go);
        settings.features.steering = false;
        assert!(matches!(gate(&settings, &wipe), Gate::Refuse(text) if text.contains("judged dangerous")));
        let ask = call(ASK_HUMAN, &json!({"question": "Which?"}));
        assert!(matches!(gate(&settings, &ask), Gate::Refuse(_)));
    }

    #[test]
    fn what_a_person_is_shown_hides_nothing() {
        let text = format!("a\u{202e}b\u{200b}c\nd\u{1b}[2Ke{}", "x".repeat(600));
        let shown = shown(&text);
        assert!(shown.starts_with("a\u{fffd}b\u{fffd}c d\u{fffd}[2Kex"), "{shown}");
        assert!(shown.ends_with('…') && shown.chars().count() == MAX_SUMMARY_CHARS + 1);
    }

    #[test]
    fn a_message_approves_only_if_it_says_nothing_else() {
        for text in
            ["yes", "Yes!", " OK. ", "approve", "Approved", "go ahead", "Yes, go ahead.", "YES GO AHEAD"]
        {
            let answer = read_answer(SteeringKind::Approval, text);
            assert_eq!((answer.decision, answer.message), (SteeringDecision::Approve, None), "{text}");
        }
        for text in ["yes but not now", "no", "", "okay then", "yesterday", "don't approve", "y e s"] {
            let answer = read_answer(SteeringKind::Approval, text);
            assert_eq!((answer.decision, answer.message.as_deref()), (SteeringDecision::Deny, Some(text)));
        }
        let answer = read_answer(SteeringKind::Question, "yes");
        assert_eq!((answer.decision, answer.message.as_deref()), (SteeringDecision::Answer, Some("yes")));
    }

    #[test]
    fn the_same_call_has_the_same_key_and_another_has_another() {
        let key = |tool: &str, arguments: &str| call_key(tool, arguments);
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
