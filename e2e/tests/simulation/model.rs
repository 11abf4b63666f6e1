//! The simulated model. Its reply depends only on the seed and the request, so that a repeated attempt gets the same
//! reply. A random number generator decides which requests fail, and how.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use herm_testkit::model_server::{ModelServer, RecordedRequest, Reply};
use serde_json::json;

use crate::history::markers::user_messages;
use crate::history::seeded_random::SeededRandom;

/// The maximum number of tool calls per user message. Each step makes one or two calls.
const MAX_CALLS: u64 = 3;
/// The percentage of requests that fail.
const FAILED_PERCENT: u64 = 25;

/// Starts the simulated model. Once `is_calm` is true, requests to it no longer fail.
pub(crate) async fn start(seed: u64, is_calm: Arc<AtomicBool>) -> ModelServer {
    let server = ModelServer::start().await;
    let random = Mutex::new(SeededRandom::new(seed ^ 0x6d6f_6465_6c00));
    server.record(false);
    server.respond_with(move |request| {
        let mut random = random.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = reply_to(seed, request);
        if is_calm.load(Ordering::SeqCst) || !random.percent(FAILED_PERCENT) {
            return reply;
        }
        failed_reply(&mut random, reply)
    });
    server
}

fn reply_to(seed: u64, request: &RecordedRequest) -> Reply {
    let name = user_messages(request.body()).pop().unwrap_or_default();
    let mut random = SeededRandom::with_label(seed, &name);
    let calls = if name.starts_with("probe") { 0 } else { random.below(MAX_CALLS + 1) };
    let (calls_per_step, tools) = (random.between(1, 2), random.next());
    let calls_made = request.tool_results_since_user().len() as u64;
    let mut reply = Reply::text(format!("{name} ")).text_in(["one ", "two ", "three."]);
    for number in calls_made..calls.min(calls_made + calls_per_step) {
        let token = format!("{name}.{number}");
        reply = match (tools >> (4 * number)) & 15 {
            0..=2 => reply.tool_call("write_file", json!({"path": token, "content": token})),
            3 => reply
                .tool_call("ask_human", json!({"question": format!("{token}?"), "options": ["yes", "no"]})),
            4..=5 => reply.tool_call("shell", json!({"command": format!("rm -rf / # {token}")})),
            _ => reply.tool_call("shell", json!({"command": token})),
        };
    }
    reply
}

fn failed_reply(random: &mut SeededRandom, reply: Reply) -> Reply {
    match random.below(8) {
        0 => Reply::status(429, json!({"error": {"message": "slow down"}})).retry_after("2"),
        1 => Reply::status(529, json!({"error": {"message": "overloaded"}})),
        2 => Reply::status(500, json!({"error": {"message": "broken"}})),
        3 => Reply::raw("text/event-stream", b"event: message_start\ndata: {\n\n".to_vec()),
        4 => Reply::error_mid_stream("overloaded_error"),
        5 => Reply::text("Something else").cut(),
        _ => reply.cut_after_text(usize::try_from(random.between(1, 12)).unwrap_or(1)),
    }
}
