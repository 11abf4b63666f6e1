//! Markers that tests put into the text of messages. A marker contains the message's name, by which the test finds the
//! message in model requests and in stored events.

use herm_testkit::model_server::RecordedRequest;
use serde_json::Value;

/// The delimiters around the message's name in a marker.
const DELIMITERS: (&str, &str) = ("<<", ">>");

/// Returns a message text that contains the marker of the message `name`.
pub(crate) fn marked_text(name: &str) -> String {
    format!("{}{name}{} Do it.", DELIMITERS.0, DELIMITERS.1)
}

/// Returns the message names in all markers of a text, in order.
pub(crate) fn names_in(text: &str) -> impl Iterator<Item = String> {
    text.split(DELIMITERS.0).skip(1).filter_map(|rest| Some(rest.split_once(DELIMITERS.1)?.0.to_owned()))
}

/// Returns the names of all user messages in the body of a model request, in order.
pub(crate) fn user_messages(body: &Value) -> Vec<String> {
    let is_user = |message: &&Value| message["role"] == "user";
    let messages = body["messages"].as_array().into_iter().flatten().filter(is_user);
    let texts = messages.flat_map(|message| match &message["content"] {
        Value::Array(blocks) => blocks.iter().filter_map(|block| block["text"].as_str()).collect(),
        Value::String(text) => vec![text.as_str()],
        _ => Vec::new(),
    });
    texts.flat_map(names_in).collect()
}

/// Returns the names of all messages that a model request contains as tool results, because they answered a steering
/// request.
pub(crate) fn answers(request: &RecordedRequest) -> Vec<String> {
    request.tool_results().iter().flat_map(|(_, text)| names_in(text)).collect()
}
