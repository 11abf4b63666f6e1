//! The verdict on a tool call: to execute it, to answer it without executing it, or to ask a person first.

use herm_command_risk::is_invisible;
use herm_types::model::ToolOutcome;
use herm_types::steering::SteeringKind;

use super::ask_human::AskHuman;
use super::call::{Cleared, ToolRequest};
use super::tool::Tool;

/// The maximum length of the command or arguments in the summary of a steering request, in characters. Of a longer text,
/// the summary shows the beginning and the end. The `arguments` of the steering request contain the whole tool call.
const MAX_SUMMARY_CHARS: usize = 500;
/// The length of the end of a text that is too long for the summary, in characters.
const SUMMARY_END_CHARS: usize = 150;

/// The result of judging a tool call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The call may be executed.
    Execute(Cleared),
    /// The call is not executed, and this is its result.
    Answer(ToolOutcome),
    /// The call may be executed only after a person has approved it.
    NeedsApproval(NeededApproval),
    /// The call asks a person a question. The answer is its result.
    Question(RequestContent),
}

impl Verdict {
    /// Returns the verdict on a call that is not executed, with the reason as its result.
    pub(crate) fn refuse(text: impl Into<String>) -> Self {
        Self::Answer(ToolOutcome { text: text.into(), is_error: true })
    }

    pub(super) fn question(AskHuman { question, options }: AskHuman) -> Self {
        let options = options.iter().map(|option| readable(option)).collect();
        Self::Question(RequestContent { kind: SteeringKind::Question, summary: readable(&question), options })
    }
}

/// A tool call that needs the approval of a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeededApproval {
    content: RequestContent,
    call: Cleared,
}

/// The content of a steering request that is to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestContent {
    pub kind: SteeringKind,
    pub summary: String,
    pub options: Vec<String>,
}

impl NeededApproval {
    /// Describes a call that needs approval. `title` is the beginning of the summary that the person reads; the call's
    /// details follow it.
    pub(super) fn new(title: &str, tool: &Tool, arguments: &str, request: ToolRequest) -> Self {
        let details = match &request {
            ToolRequest::Shell(shell) => shell.command.clone(),
            // Parsing and writing the JSON again decodes escaped characters.
            ToolRequest::File(_) => serde_json::from_str::<serde_json::Value>(arguments)
                .map_or_else(|_| arguments.to_owned(), |arguments| arguments.to_string()),
        };
        let summary = format!("{title}{}", summarize(&details));
        let content = RequestContent { kind: SteeringKind::Approval, summary, options: Vec::new() };
        Self { content, call: Cleared::new(tool, request, false, None) }
    }

    /// Returns the content of the steering request that asks for the approval.
    pub fn content(&self) -> &RequestContent {
        &self.content
    }

    /// Returns the call as one that may be executed, because a person has approved an equivalent call before.
    pub fn approved_before(self) -> Cleared {
        self.call
    }
}

/// Converts text from a model to a single line that is safe to show to a person: replaces characters that could hide or
/// reorder the text around them, and joins blanks, which could push the rest of the text out of view.
fn summarize(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let chars: Vec<char> = line.chars().map(visible).collect();
    if chars.len() <= MAX_SUMMARY_CHARS {
        return chars.into_iter().collect();
    }
    let (begin, rest) = chars.split_at(MAX_SUMMARY_CHARS - SUMMARY_END_CHARS);
    let (_, end) = rest.split_at(rest.len() - SUMMARY_END_CHARS);
    begin.iter().chain(&[' ', '…', ' ']).chain(end).collect()
}

/// Replaces the characters of a question that could hide or reorder the text around them. Lines and blanks remain.
fn readable(text: &str) -> String {
    text.chars().map(|c| if matches!(c, '\n' | '\t') { c } else { visible(c) }).collect()
}

fn visible(c: char) -> char {
    if c.is_control() || is_invisible(c) || matches!(c, '\u{2028}' | '\u{2029}') { '\u{fffd}' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::FileRequest;

    #[test]
    fn a_summary_is_one_line_in_which_nothing_is_hidden() {
        let line = summarize("a\u{202e}b\u{200b}c\n\u{2028}d\u{1b}[2Ke\u{3164}\u{e0041}f");
        assert_eq!(line, "a\u{fffd}b\u{fffd}c d\u{fffd}[2Ke\u{fffd}\u{fffd}f");
        assert_eq!(summarize(&format!("ls{}; rm -rf x", " ".repeat(600))), "ls ; rm -rf x");
        let long = summarize(&format!("begin {} end", "x".repeat(600)));
        assert!(long.starts_with("begin xx") && long.contains("x … x") && long.ends_with("x end"), "{long}");
        assert_eq!(long.chars().count(), MAX_SUMMARY_CHARS + 3);
    }

    #[test]
    fn the_arguments_of_a_file_tool_are_shown_decoded() {
        let request =
            |arguments: &str| ToolRequest::File(FileRequest::Write(serde_json::from_str(arguments).unwrap()));
        let arguments = format!(r#"{{{}"path": "\u002ebashrc", "content": "x"}}"#, " ".repeat(600));
        let needed =
            NeededApproval::new("Write: ", &crate::tools::write_file::TOOL, &arguments, request(&arguments));
        assert_eq!(needed.content().summary, r#"Write: {"path":".bashrc","content":"x"}"#);
    }

    #[test]
    fn a_question_keeps_its_lines_but_hides_nothing() {
        let question =
            AskHuman { question: "a\nb\u{1b}[2J\u{0}".to_owned(), options: vec!["\u{202e}x".to_owned()] };
        let Verdict::Question(content) = Verdict::question(question) else { panic!() };
        assert_eq!(
            (content.summary.as_str(), content.options),
            ("a\nb\u{fffd}[2J\u{fffd}", vec!["\u{fffd}x".to_owned()])
        );
    }
}
