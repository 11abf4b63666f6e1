//! The verdict on a tool call: to execute it, to answer it without executing it, or to ask a person first.

use herm_types::model::ToolOutcome;
use herm_types::steering::SteeringKind;

use super::ask_human::AskHuman;
use super::call::{Cleared, ToolRequest};
use super::tool::Tool;

/// The maximum length of the command or arguments in the summary of a steering request, in characters. Longer ones are
/// truncated. The `arguments` of the steering request contain the whole tool call.
const MAX_SUMMARY_CHARS: usize = 500;

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
        Self::Question(RequestContent { kind: SteeringKind::Question, summary: question, options })
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
            ToolRequest::Shell(shell) => &shell.command,
            ToolRequest::File(_) => arguments,
        };
        let summary = format!("{title}{}", sanitize(details));
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

/// Converts text from a model to a single line that is safe to show to a person. Replaces characters that could hide or
/// reorder the text around them.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_are_replaced_in_a_summary() {
        let text = format!("a\u{202e}b\u{200b}c\nd\u{1b}[2Ke{}", "x".repeat(600));
        let line = sanitize(&text);
        assert!(line.starts_with("a\u{fffd}b\u{fffd}c d\u{fffd}[2Kex"), "{line}");
        assert!(line.ends_with('…') && line.chars().count() == MAX_SUMMARY_CHARS + 1);
    }
}
