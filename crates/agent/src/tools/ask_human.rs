//! The tool `ask_human`, with which the agent asks a person a question. It is not executed: its result is the answer.

use herm_types::tool::Permission;
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::json;

use super::schema::Schema;
use super::tool::{Effect, Feature, Tool, all_arguments};

/// The maximum number of suggested answers to an `ask_human` question. A call with more is rejected.
pub const MAX_OPTIONS: usize = 10;
/// The maximum total length of an `ask_human` question and its suggested answers, in characters. A longer call is
/// rejected.
pub const MAX_QUESTION_CHARS: usize = 10_000;

pub(super) const TOOL: Tool = Tool {
    name: "ask_human",
    needs: Feature::Steering,
    effect: Effect::Read,
    default_permission: Permission::AlwaysAllow,
    schema,
    approved_part: all_arguments,
};

/// The arguments of the tool `ask_human`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskHuman {
    pub question: String,
    /// Suggested answers that the person can choose from. Other answers are possible too.
    #[serde(default)]
    pub options: Vec<String>,
}

fn schema() -> Schema {
    Schema {
        description: format!(
            "Ask a person and wait for the answer, which can take days. Use it only for what you cannot find out or \
             decide yourself. options: up to {MAX_OPTIONS} short suggested answers; the person may answer something \
             else."
        ),
        properties: json!({
            "question": {"type": "string"},
            "options": {"type": "array", "items": {"type": "string"}, "maxItems": MAX_OPTIONS},
        }),
        required: &["question"],
    }
}

/// Parses and validates the arguments of a call.
pub(super) fn parse(arguments: &str) -> Result<AskHuman, serde_json::Error> {
    let question: AskHuman = serde_json::from_str(arguments)?;
    check(&question).map_err(serde_json::Error::custom)?;
    Ok(question)
}

fn check(AskHuman { question, options }: &AskHuman) -> Result<(), String> {
    let chars = |text: &String| text.chars().count();
    if question.trim().is_empty() {
        return Err("`question` must not be empty".to_owned());
    }
    if options.iter().any(|option| option.trim().is_empty()) {
        return Err("`options` must not contain an empty text".to_owned());
    }
    if options.len() > MAX_OPTIONS {
        return Err(format!("`options` must have at most {MAX_OPTIONS} entries"));
    }
    if chars(question) + options.iter().map(chars).sum::<usize>() > MAX_QUESTION_CHARS {
        return Err(format!(
            "`question` and `options` together must have at most {MAX_QUESTION_CHARS} characters"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_beyond_a_limit_is_rejected() {
        let ask = |arguments: serde_json::Value| parse(&arguments.to_string());
        assert!(ask(json!({"question": "Which?", "options": ["a", "b"]})).is_ok());
        for invalid in [
            json!({"question": " "}),
            json!({"question": "a", "options": ["b", " "]}),
            json!({"question": "a", "options": vec!["x"; MAX_OPTIONS + 1]}),
            json!({"question": "a".repeat(MAX_QUESTION_CHARS + 1)}),
        ] {
            assert!(ask(invalid).unwrap_err().to_string().contains("must"));
        }
    }
}
