//! Messages are marked, so that they are known again wherever they turn up.

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

/// The messages that a request tells the model of, in their order.
pub(crate) fn heard(body: &Value) -> Vec<String> {
    let of_user = |message: &&Value| message["role"] == "user";
    let messages = body["messages"].as_array().into_iter().flatten().filter(of_user);
    let blocks = messages.flat_map(|message| match &message["content"] {
        Value::Array(blocks) => {
            blocks.iter().filter_map(|block| Some(block.get("text")?.as_str()?.to_owned())).collect()
        }
        Value::String(text) => vec![text.clone()],
        _ => Vec::new(),
    });
    blocks.flat_map(|text: String| marks(&text).collect::<Vec<_>>()).collect()
}
