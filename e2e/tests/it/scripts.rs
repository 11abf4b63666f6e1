//! What the scripted model does. Each script reads the conversation alone, so that it answers a repeated request
//! as it did the first, whatever happened in between.

use herm_testkit::model_server::{Gate, RecordedRequest, Reply};
use serde_json::{Value, json};

/// What the model says at the end of [`use_shell`], in pieces.
pub(crate) const ANSWER: [&str; 4] = ["The file ", "is ", "written", ": «done» 🦀."];

pub(crate) fn answer() -> String {
    ANSWER.concat()
}

/// Runs one command, then answers with the same words whatever came of it.
pub(crate) fn use_shell(command: &str) -> impl Fn(&RecordedRequest) -> Reply + Send + Sync + 'static {
    let arguments = shell(command);
    move |request| {
        if request.tool_results_since_user().is_empty() {
            Reply::text("I write ").then_text("it.").tool_call("shell", arguments.clone())
        } else {
            Reply::new().text_in(ANSWER)
        }
    }
}

/// As [`use_shell`], with a gate after the second piece of the answer.
pub(crate) fn use_shell_and_wait(
    command: &str,
    gate: &Gate,
) -> impl Fn(&RecordedRequest) -> Reply + Send + Sync + 'static {
    let (gate, arguments) = (gate.clone(), shell(command));
    move |request| {
        if request.tool_results_since_user().is_empty() {
            Reply::text("I write it.").tool_call("shell", arguments.clone())
        } else {
            let [first, second, rest @ ..] = ANSWER;
            Reply::new().text_in([first, second]).gate(&gate).text_in(rest)
        }
    }
}

/// The arguments of a call of `shell`.
pub(crate) fn shell(command: &str) -> Value {
    json!({"command": command})
}

/// Answers each message with the same word.
pub(crate) fn echo() -> impl Fn(&RecordedRequest) -> Reply + Send + Sync + 'static {
    |request| Reply::text("You said: ").then_text(request.last_user_text())
}
