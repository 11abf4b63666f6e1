//! Messages are marked, so that they are known again wherever they turn up.

use herm_testkit::model_server::RecordedRequest;
use serde_json::Value;

/// How a message that is looked for is marked in a text.
const MARK: (&str, &str) = ("<<", ">>");

pub(crate) fn marked(name: &str) -> String {
    format!("{}{name}{} Do it.", MARK.0, MARK.1)
}

/// The marks in a text, in their order.
pub(crate) fn marks(text: &str) -> impl Iterator<Item = String> {
    text.split(MARK.0).skip(1).filter_map(|rest| Some(rest.split_once(MARK.1)?.0.to_owned()))
}

/// The messages that a request tells the model of as such, in their order.
pub(crate) fn heard(body: &Value) -> Vec<String> {
    let of_user = |message: &&Value| message["role"] == "user";
    let messages = body["messages"].as_array().into_iter().flatten().filter(of_user);
    let texts = messages.flat_map(|message| match &message["content"] {
        Value::Array(blocks) => blocks.iter().filter_map(|block| block["text"].as_str()).collect(),
        Value::String(text) => vec![text.as_str()],
        _ => Vec::new(),
    });
    texts.flat_map(marks).collect()
}

/// The messages that a request tells the model of as the results of calls.
pub(crate) fn answers(request: &RecordedRequest) -> Vec<String> {
    request.tool_results().iter().flat_map(|(_, text)| marks(text)).collect()
}
