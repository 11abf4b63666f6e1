//! Converts the arguments of earlier tool calls so that they can be sent to a provider again.
//!
//! A model may have generated arguments that are not a valid JSON object. Anthropic accepts only an object,
//! and servers that insert the arguments into a prompt fail on anything else. One invalid call in the history
//! would make the thread unusable. Invalid arguments are therefore sent as a string inside an object, under
//! the key that Anthropic's documentation recommends.

use std::borrow::Cow;

use serde_json::Value;
use serde_json::value::RawValue;

const INVALID_JSON: &str = "INVALID_JSON";

/// Returns the arguments as a JSON object in text form: unchanged if they are an object, `{}` if they are
/// empty, and otherwise as a string inside an object.
pub(crate) fn object_text(arguments: &str) -> Cow<'_, str> {
    let trimmed = arguments.trim();
    if trimmed.is_empty() {
        return Cow::Borrowed("{}");
    }
    if is_object(trimmed) {
        return Cow::Borrowed(trimmed);
    }
    Cow::Owned(serde_json::json!({ INVALID_JSON: arguments }).to_string())
}

fn is_object(text: &str) -> bool {
    if !text.starts_with('{') || serde_json::from_str::<&RawValue>(text).is_err() {
        return false;
    }
    // `RawValue` accepts a `\u` escape that is a lone surrogate, but providers reject it. Arguments with `\u`
    // escapes are therefore parsed completely.
    !text.contains("\\u") || serde_json::from_str::<Value>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_sent_unchanged() {
        for object in [r#"{}"#, r#"{ "b": 1.50, "a": [ ] }"#, r#"{"a":"\u00e9"}"#] {
            assert_eq!(object_text(object), object);
        }
        assert_eq!(object_text(" \n"), "{}");
    }

    #[test]
    fn invalid_arguments_are_sent_inside_an_object() {
        for text in ["{\"path\": \"a", "[1]", "null", "{} {}", r#"{"a":"\ud83d"}"#, &"{\"a\":".repeat(500)] {
            let sent: Value = serde_json::from_str(&object_text(text)).unwrap();
            assert_eq!(sent, serde_json::json!({ "INVALID_JSON": text }));
        }
    }
}
