//! The simulated person, who answers steering requests: an agent's requests to approve a tool call or to answer a
//! question.

use serde_json::{Value, json};

use crate::history::seeded_random::SeededRandom;

/// Of the steering requests that can expire, the percentage that the person leaves unanswered.
const UNANSWERED_PERCENT: u64 = 30;
/// The percentage of answers that are sent as a message to the thread. The others are sent to the steering endpoint.
const ANSWERED_BY_MESSAGE_PERCENT: u64 = 30;
/// Of the answers sent to the steering endpoint, the percentage that deny the request.
const DENIED_PERCENT: u64 = 30;
/// The percentage of approvals that change the arguments of the tool call.
const EDITED_PERCENT: u64 = 25;
/// The percentage of approvals that are stored (`remember: "always"`), so that equal tool calls need no further
/// approval.
const REMEMBERED_PERCENT: u64 = 20;

/// The person's reaction to a steering request.
pub(crate) enum PersonAnswer {
    /// The person does not answer, so the request expires.
    None,
    Message,
    /// The person sends this request body to the steering endpoint.
    Endpoint(Value),
}

/// Returns the person's reaction to a steering request. It is the same for all requests with equal summary and
/// arguments.
pub(crate) fn choose_answer(seed: u64, request: &Value) -> PersonAnswer {
    let mut random =
        SeededRandom::with_label(seed, &format!("{}{}", request["summary"], request["arguments"]));
    if random.percent(UNANSWERED_PERCENT) && !request["expires_at"].is_null() {
        return PersonAnswer::None;
    }
    if random.percent(ANSWERED_BY_MESSAGE_PERCENT) {
        return PersonAnswer::Message;
    }
    if random.percent(DENIED_PERCENT) {
        return PersonAnswer::Endpoint(json!({"decision": "deny", "message": "Not today."}));
    }
    if request["kind"] == "question" {
        return PersonAnswer::Endpoint(json!({"decision": "answer", "message": "Yes."}));
    }
    let mut body = json!({"decision": "approve"});
    if random.percent(EDITED_PERCENT) {
        let command = request["arguments"]["command"].as_str().unwrap_or_default();
        body["arguments"] = json!({"command": format!("{command} # edited")});
    }
    if random.percent(REMEMBERED_PERCENT) {
        body["remember"] = json!("always");
    }
    PersonAnswer::Endpoint(body)
}
