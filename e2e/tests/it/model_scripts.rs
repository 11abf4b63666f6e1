//! Scripts for the scripted model. A script's reply depends only on the conversation, so a model call that is repeated
//! after a failure gets the same reply.

use herm_testkit::model_server::{Gate, RecordedRequest, Reply};
use serde_json::{Value, json};

/// The pieces of the final reply of [`use_shell`], in the order in which they are streamed.
pub(crate) const REPLY: [&str; 4] = ["The file ", "is ", "written", ": «done» 🦀."];

pub(crate) fn reply_text() -> String {
    REPLY.concat()
}

/// Returns a script that runs one shell command and then replies with [`REPLY`], whatever the command's result is.
pub(crate) fn use_shell(command: &str) -> impl Fn(&RecordedRequest) -> Reply + Send + Sync + 'static {
    let arguments = shell(command);
    move |request| {
        if request.tool_results_since_user().is_empty() {
            Reply::text("I write ").then_text("it.").tool_call("shell", arguments.clone())
        } else {
            Reply::new().text_in(REPLY)
        }
    }
}

/// Returns a script like [`use_shell`], but its final reply pauses after the second chunk until `gate` is opened.
pub(crate) fn use_shell_and_wait(
    command: &str,
    gate: &Gate,
) -> impl Fn(&RecordedRequest) -> Reply + Send + Sync + 'static {
    let (gate, arguments) = (gate.clone(), shell(command));
    move |request| {
        if request.tool_results_since_user().is_empty() {
            Reply::text("I write it.").tool_call("shell", arguments.clone())
        } else {
            let [first, second, rest @ ..] = REPLY;
            Reply::new().text_in([first, second]).gate(&gate).text_in(rest)
        }
    }
}

/// Returns the arguments of a `shell` tool call that runs this command.
pub(crate) fn shell(command: &str) -> Value {
    json!({"command": command})
}

/// Returns a script that replies to each message by repeating it.
pub(crate) fn echo() -> impl Fn(&RecordedRequest) -> Reply + Send + Sync + 'static {
    |request| Reply::text("You said: ").then_text(request.last_user_text())
}
