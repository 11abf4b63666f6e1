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

/// The messages that a request tells the model of as such, in their order.
pub(crate) fn heard(body: &Value) -> Vec<String> {
    let mut texts = Vec::new();
    for message in of_users(body) {
        add_texts(&message["content"], &mut texts);
    }
    texts.into_iter().flat_map(marks).collect()
}

/// The messages that a request tells the model of as the results of calls.
pub(crate) fn answers(body: &Value) -> Vec<String> {
    let blocks = of_users(body).filter_map(|message| message["content"].as_array()).flatten();
    let mut texts = Vec::new();
    for result in blocks.filter(|block| block["type"] == "tool_result") {
        add_texts(&result["content"], &mut texts);
    }
    texts.into_iter().flat_map(marks).collect()
}

fn of_users(body: &Value) -> impl Iterator<Item = &Value> {
    body["messages"].as_array().into_iter().flatten().filter(|message| message["role"] == "user")
}

/// Adds the texts of a content: a string, or blocks.
fn add_texts<'a>(content: &'a Value, texts: &mut Vec<&'a str>) {
    match content {
        Value::String(text) => texts.push(text),
        Value::Array(blocks) => texts.extend(blocks.iter().filter_map(|block| block["text"].as_str())),
        _ => {}
    }
}
