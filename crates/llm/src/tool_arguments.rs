//! The arguments of earlier tool calls, as they are sent back to a provider.
//!
//! A model may write arguments that are not JSON. Anthropic takes only an object, and servers that render
//! arguments into a prompt fail on anything else, so that one bad call would spoil the thread for good. Such text
//! is sent inside an object, under the key that Anthropic's documentation recommends for it.

use std::borrow::Cow;

use serde_json::Value;
use serde_json::value::RawValue;

const INVALID_JSON: &str = "INVALID_JSON";

/// The arguments as the text of a JSON object: unchanged if they are one, `{}` if there are none.
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
    // The check above does not look into escapes, where half a surrogate pair may hide that providers refuse.
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
    fn anything_else_is_sent_inside_an_object() {
        for text in ["{\"path\": \"a", "[1]", "null", "{} {}", r#"{"a":"\ud83d"}"#, &"{\"a\":".repeat(500)] {
            let sent: Value = serde_json::from_str(&object_text(text)).unwrap();
            assert_eq!(sent, serde_json::json!({ "INVALID_JSON": text }));
        }
    }
}
