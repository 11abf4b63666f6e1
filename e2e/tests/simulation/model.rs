//! The model: what it says is decided by what it is told, so that an attempt that is made again says the same; how it
//! fails is decided by the dice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use herm_testkit::model_server::{ModelServer, RecordedRequest, Reply};
use serde_json::json;

use crate::history::dice::Dice;
use crate::history::marks::heard;

/// Calls that a message leads to at most, one or two in a step.
const MAX_CALLS: u64 = 3;
/// Requests of a hundred that fail.
const FAILURES: u64 = 25;
/// Starts the model; from when `is_calm` is set it does not fail.
pub(crate) async fn start(seed: u64, is_calm: Arc<AtomicBool>) -> ModelServer {
    let server = ModelServer::start().await;
    let dice = Mutex::new(Dice::new(seed ^ 0x6d6f_6465_6c00));
    server.record(false);
    server.respond_with(move |request| {
        let mut dice = dice.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = answer(seed, request);
        if is_calm.load(Ordering::SeqCst) || !dice.percent(FAILURES) {
            return answer;
        }
        fail(&mut dice, answer)
    });
    server
}

fn answer(seed: u64, request: &RecordedRequest) -> Reply {
    let name = heard(request.body()).pop().unwrap_or_default();
    let mut dice = Dice::of(seed, &name);
    let calls = if name.starts_with("probe") { 0 } else { dice.below(MAX_CALLS + 1) };
    let (at_once, commands) = (dice.between(1, 2), dice.next());
    let made = request.tool_results_since_user().len() as u64;
    let mut reply = Reply::text(format!("{name} ")).text_in(["one ", "two ", "three."]);
    for number in made..calls.min(made + at_once) {
        let token = format!("{name}.{number}");
        reply = match (commands >> (4 * number)) & 15 {
            0..=2 => reply.tool_call("write_file", json!({"path": token, "content": token})),
            3 => reply
                .tool_call("ask_human", json!({"question": format!("{token}?"), "options": ["yes", "no"]})),
            4..=5 => reply.tool_call("shell", json!({"command": format!("rm -rf / # {token}")})),
            _ => reply.tool_call("shell", json!({"command": token})),
        };
    }
    reply
}

fn fail(dice: &mut Dice, answer: Reply) -> Reply {
    match dice.below(8) {
        0 => Reply::status(429, json!({"error": {"message": "slow down"}})).retry_after("2"),
        1 => Reply::status(529, json!({"error": {"message": "overloaded"}})),
        2 => Reply::status(500, json!({"error": {"message": "broken"}})),
        3 => Reply::raw("text/event-stream", b"event: message_start\ndata: {\n\n".to_vec()),
        4 => Reply::error_mid_stream("overloaded_error"),
        5 => Reply::text("Something else").cut(),
        _ => answer.cut_after_text(usize::try_from(dice.between(1, 12)).unwrap_or(1)),
    }
}
