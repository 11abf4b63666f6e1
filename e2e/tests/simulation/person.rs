//! The person whom agents ask.

use serde_json::{Value, json};

use crate::history::dice::Dice;

/// Of a hundred requests: those that are left to expire, where they do.
const LEFT: u64 = 30;
/// Of a hundred requests that are answered: those that are by a message.
const BY_MESSAGE: u64 = 30;
/// Of a hundred requests that are answered by the endpoint: those that are denied.
const DENIED: u64 = 30;
/// Of a hundred approvals: those of other arguments, and those for good.
const EDITS: u64 = 25;
const REMEMBERS: u64 = 20;

pub(crate) enum Decision {
    /// It is left alone.
    None,
    ByMessage,
    /// With this body.
    ByEndpoint(Value),
}

/// What becomes of a request: the same each time that the same is asked.
pub(crate) fn decide(seed: u64, request: &Value) -> Decision {
    let mut dice = Dice::of(seed, &format!("{}{}", request["summary"], request["arguments"]));
    if dice.percent(LEFT) && !request["expires_at"].is_null() {
        return Decision::None;
    }
    if dice.percent(BY_MESSAGE) {
        return Decision::ByMessage;
    }
    if dice.percent(DENIED) {
        return Decision::ByEndpoint(json!({"decision": "deny", "message": "Not today."}));
    }
    if request["kind"] == "question" {
        return Decision::ByEndpoint(json!({"decision": "answer", "message": "Yes."}));
    }
    let mut body = json!({"decision": "approve"});
    if dice.percent(EDITS) {
        let command = request["arguments"]["command"].as_str().unwrap_or_default();
        body["arguments"] = json!({"command": format!("{command} # edited")});
    }
    if dice.percent(REMEMBERS) {
        body["remember"] = json!("always");
    }
    Decision::ByEndpoint(body)
}
