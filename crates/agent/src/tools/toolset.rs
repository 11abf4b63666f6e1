//! The toolset of a deployment: its tools and their settings, which determine if a tool call may be executed.

use std::collections::BTreeMap;

use herm_types::deployment::DeploymentSettings;
use herm_types::model::{ToolCall, ToolSchema};
use herm_types::tool::{Permission, ToolSetting};

use super::call::{Cleared, ParsedCall, ToolRequest};
use super::table::{self, parse};
use super::tool::{Effect, Feature, Tool};
use super::verdict::{NeededApproval, Verdict};

/// The tools that a deployment has, and their settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Toolset {
    has_sandbox: bool,
    has_steering: bool,
    /// The settings of tools, keyed by name. A tool without an entry has its default settings.
    settings: BTreeMap<String, ToolSetting>,
}

impl Toolset {
    /// Returns the tools of a deployment with these settings.
    pub fn new(settings: &DeploymentSettings) -> Self {
        Self {
            has_sandbox: settings.sandbox.enabled,
            has_steering: settings.features.steering,
            settings: settings.tools.clone(),
        }
    }

    /// Returns the built-in tools whose feature the deployment has, enabled or not, always in the same order.
    pub fn available(&self) -> impl Iterator<Item = &'static Tool> {
        table::all().filter(|tool| self.has(tool.needs))
    }

    /// Returns the schemas of all available tools that are enabled, always in the same order.
    pub fn schemas(&self) -> Vec<ToolSchema> {
        let is_enabled = |tool: &&Tool| self.settings.get(tool.name).is_none_or(|setting| setting.enabled);
        self.available().filter(is_enabled).map(Tool::schema).collect()
    }

    fn has(&self, feature: Feature) -> bool {
        match feature {
            Feature::Sandbox => self.has_sandbox,
            Feature::Steering => self.has_steering,
        }
    }

    /// Judges a call that no attempt has begun and about which no person was asked.
    pub fn judge(&self, call: &ToolCall) -> Verdict {
        if let Some(text) = self.refusal(&call.tool) {
            return Verdict::refuse(text);
        }
        match parse(call) {
            Ok((tool, ParsedCall::Execute(request))) => self.check_approval(tool, request, call),
            Ok((_, ParsedCall::AskPerson(question))) => Verdict::question(question),
            Err(text) => Verdict::refuse(text),
        }
    }

    /// Judges a call that a person has approved. Its permission is not checked. `note` is a text for the model that
    /// precedes the result.
    pub(crate) fn judge_approved(call: &ToolCall, was_begun: bool, note: Option<&str>) -> Verdict {
        match parse(call) {
            Ok((tool, ParsedCall::Execute(request))) => {
                Verdict::Execute(Cleared::new(tool, request, was_begun, note.map(str::to_owned)))
            }
            Ok((_, ParsedCall::AskPerson(question))) => Verdict::question(question),
            Err(text) => Verdict::refuse(text),
        }
    }

    /// Judges a call that an earlier attempt has begun. If it must not be repeated, its result is only looked up.
    /// Otherwise it is made again, and therefore judged again.
    pub(crate) fn judge_begun(&self, call: &ToolCall) -> Verdict {
        match parse(call) {
            Ok((tool, ParsedCall::Execute(request))) if tool.effect == Effect::Unsafe => {
                Verdict::Execute(Cleared::new(tool, request, true, None))
            }
            _ => self.judge(call),
        }
    }

    /// Returns the reason why calls of this tool are never executed, as a text for the model, or `None` if they can be
    /// executed, possibly only after an approval.
    fn refusal(&self, name: &str) -> Option<String> {
        if let Some(tool) = table::find(name).filter(|tool| !self.has(tool.needs)) {
            return Some(match tool.needs {
                Feature::Steering => {
                    "This agent may not ask a person. Decide as well as you can, or say what is undecided."
                        .to_owned()
                }
                Feature::Sandbox => format!("The tool {name} is not available: this agent has no sandbox."),
            });
        }
        if self.settings.get(name).is_some_and(|setting| !setting.enabled) {
            return Some(format!("The tool {name} is switched off for this agent."));
        }
        (self.permission(name) == Permission::Deny)
            .then(|| format!("The tool {name} may not be used by this agent. Do not call it again."))
    }

    /// Returns the permission of a tool: the deployment's setting, or the tool's default.
    fn permission(&self, name: &str) -> Permission {
        let default = || table::find(name).map_or(Permission::AlwaysAllow, |tool| tool.default_permission);
        self.settings.get(name).map_or_else(default, |setting| setting.permission)
    }

    fn check_approval(&self, tool: &Tool, request: ToolRequest, call: &ToolCall) -> Verdict {
        let name = tool.name;
        let always_asks = self.permission(name) == Permission::AlwaysAsk;
        let (title, refusal) = match (request.risk(), always_asks) {
            (Some(risk), _) => (
                format!(
                    "Run a potentially dangerous command ({}): {}. The command: ",
                    risk.rule, risk.reason
                ),
                format!(
                    "The command was not run. It was judged dangerous because {}, and this agent may not ask a \
                     person. Find another way, or describe what you would have done.",
                    risk.reason
                ),
            ),
            (None, true) => (
                match request {
                    ToolRequest::Shell(_) => "Run a command: ".to_owned(),
                    ToolRequest::File(_) => format!("Use {name} with: "),
                },
                format!(
                    "The tool {name} needs a person's approval, and this agent may not ask a person. Describe what \
                     you would have done."
                ),
            ),
            (None, false) => return Verdict::Execute(Cleared::new(tool, request, false, None)),
        };
        if !self.has_steering {
            return Verdict::refuse(refusal);
        }
        Verdict::NeedsApproval(NeededApproval::new(&title, tool, &call.arguments, request))
    }
}

#[cfg(test)]
mod tests {
    use herm_types::sandbox::{SandboxSettings, SandboxType};
    use herm_types::steering::SteeringKind;
    use serde_json::json;

    use super::*;
    use crate::tools::CallMode;

    fn settings() -> DeploymentSettings {
        DeploymentSettings::new(SandboxSettings::new(SandboxType::Local, Some(SandboxType::Local)))
    }

    fn with(tool: &str, enabled: bool, permission: Permission) -> Toolset {
        let mut settings = settings();
        settings.tools.insert(tool.to_owned(), ToolSetting { enabled, permission });
        Toolset::new(&settings)
    }

    fn call(tool: &str, arguments: &serde_json::Value) -> ToolCall {
        ToolCall { tool_call_id: "c".to_owned(), tool: tool.to_owned(), arguments: arguments.to_string() }
    }

    fn refusal(verdict: Verdict) -> String {
        let Verdict::Answer(outcome) = verdict else { panic!("{verdict:?}") };
        assert!(outcome.is_error);
        outcome.text
    }

    fn names(tools: &Toolset) -> Vec<String> {
        tools.schemas().into_iter().map(|schema| schema.name).collect()
    }

    #[test]
    fn a_call_is_executed_asked_about_or_refused_by_its_permission() {
        let read = call("read_file", &json!({"path": "a"}));
        let verdict = with("shell", true, Permission::AlwaysAsk).judge(&read);
        assert!(matches!(verdict, Verdict::Execute(_)), "{verdict:?}");
        let Verdict::NeedsApproval(needed) = with("read_file", true, Permission::AlwaysAsk).judge(&read)
        else {
            panic!()
        };
        assert_eq!(needed.content().kind, SteeringKind::Approval);
        assert_eq!(needed.content().summary, r#"Use read_file with: {"path":"a"}"#);
        let ls = call("shell", &json!({"command": "ls"}));
        let Verdict::NeedsApproval(needed) = with("shell", true, Permission::AlwaysAsk).judge(&ls) else {
            panic!()
        };
        assert_eq!(needed.content().summary, "Run a command: ls");
        let denied = with("read_file", true, Permission::Deny);
        assert!(refusal(denied.judge(&read)).contains("may not be used"));
        assert_eq!(names(&denied).len(), table::all().count());
        let disabled = with("read_file", false, Permission::AlwaysAllow);
        assert!(refusal(disabled.judge(&read)).contains("switched off"));
        assert_eq!(names(&disabled).len(), table::all().count() - 1);
    }

    #[test]
    fn a_dangerous_command_needs_an_approval_that_names_the_rule_and_is_refused_without_steering() {
        let wipe = call("shell", &json!({"command": "rm -rf /workspace"}));
        let mut settings = settings();
        let Verdict::NeedsApproval(needed) = Toolset::new(&settings).judge(&wipe) else { panic!() };
        let summary = &needed.content().summary;
        assert!(summary.contains("(recursive_delete): it deletes"), "{summary}");
        assert!(summary.ends_with("rm -rf /workspace"), "{summary}");
        let ls = call("shell", &json!({"command": "ls"}));
        assert!(matches!(Toolset::new(&settings).judge(&ls), Verdict::Execute(_)));
        settings.features.steering = false;
        assert!(refusal(Toolset::new(&settings).judge(&wipe)).contains("judged dangerous"));
    }

    #[test]
    fn a_question_is_asked_and_refused_without_steering() {
        let ask = call("ask_human", &json!({"question": "Which?", "options": ["a"]}));
        let mut settings = settings();
        let Verdict::Question(content) = Toolset::new(&settings).judge(&ask) else { panic!() };
        assert_eq!((content.summary.as_str(), content.options.len()), ("Which?", 1));
        settings.features.steering = false;
        assert!(refusal(Toolset::new(&settings).judge(&ask)).contains("may not ask"));
    }

    #[test]
    fn without_a_sandbox_only_ask_human_is_available() {
        let mut settings = settings();
        settings.sandbox.enabled = false;
        let tools = Toolset::new(&settings);
        assert_eq!(names(&tools), ["ask_human"]);
        let verdict = tools.judge(&call("shell", &json!({"command": "ls"})));
        assert!(refusal(verdict).contains("no sandbox"));
        settings.features.steering = false;
        assert!(names(&Toolset::new(&settings)).is_empty());
    }

    #[test]
    fn a_call_begun_before_a_crash_is_looked_up_or_judged_again() {
        let tools = with("write_file", true, Permission::Deny);
        let write = call("write_file", &json!({"path": "a", "content": "b"}));
        assert!(refusal(tools.judge_begun(&write)).contains("may not be used"));
        let allowed = Toolset::new(&settings());
        let mode = |verdict: Verdict| {
            let Verdict::Execute(cleared) = verdict else { panic!("{verdict:?}") };
            cleared.into_parts().1
        };
        let edit = call("edit_file", &json!({"path": "a", "old_text": "b", "new_text": "c"}));
        let wipe = call("shell", &json!({"command": "rm -rf /workspace"}));
        let read = call("read_file", &json!({"path": "a"}));
        for (call, expected) in [
            (&wipe, CallMode::Recover),
            (&edit, CallMode::Recover),
            (&write, CallMode::Execute),
            (&read, CallMode::Execute),
        ] {
            assert_eq!(mode(allowed.judge_begun(call)), expected, "{call:?}");
            assert_eq!(mode(Toolset::judge_approved(call, false, None)), CallMode::Execute, "{call:?}");
        }
    }

    #[test]
    fn an_approved_call_is_still_parsed() {
        let verdict = Toolset::judge_approved(&call("shell", &json!({"cmd": "ls"})), false, None);
        assert!(refusal(verdict).contains("unknown field `cmd`"));
    }
}
