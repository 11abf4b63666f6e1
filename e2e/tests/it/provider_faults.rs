//! Model providers that fail: what is tried again, what ends the run, and what a client sees of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use herm_testkit::model_server::{Gate, Reply};
use serde_json::{Value, json};

use crate::log;
use crate::reader::{Reader, is_end};
use crate::world::{World, create, send, text, try_send};

/// A run of one message with these replies; its events.
async fn run(world: &World, model: &str, replies: impl IntoIterator<Item = Reply>) -> Reader {
    replies.into_iter().for_each(|reply| world.model.push(reply));
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, model).await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "Hello?").await;
    reader.until_ended(&client, &run_id).await;
    log::check(&reader.seen);
    reader
}

fn end(reader: &Reader) -> &Value {
    &reader.seen.last().unwrap().data
}

fn said(reader: &Reader) -> Vec<(String, bool)> {
    let of_agent = reader.of("message").into_iter().filter(|event| event.data["role"] == "agent");
    of_agent
        .map(|event| (event.data["content"].as_str().unwrap().to_owned(), event.data["truncated"] == true))
        .collect()
}

pub(crate) fn fault(status: u16, kind: &str, message: &str) -> Reply {
    Reply::status(status, json!({"type": "error", "error": {"type": kind, "message": message}}))
}

/// Faults that may pass, by the name that [`fault_of`] knows, and the code of a run that ends by it.
pub(crate) static PASSING: [(&str, &str); 13] = [
    ("429", "provider_rate_limited"),
    ("429 in the stream", "provider_rate_limited"),
    ("529", "provider_overloaded"),
    ("503", "provider_overloaded"),
    ("500", "provider_error"),
    ("502", "provider_error"),
    ("cut before its first word", "provider_unreachable"),
    ("cut", "provider_unreachable"),
    ("silent in the middle", "provider_stalled"),
    ("silent from the start", "provider_stalled"),
    ("no JSON", "provider_malformed_response"),
    ("no end", "provider_unreachable"),
    ("a page", "provider_malformed_response"),
];

/// Faults that do not pass.
pub(crate) static LASTING: [(&str, &str); 6] = [
    ("401", "provider_authentication"),
    ("404", "provider_rejected_request"),
    ("too long", "context_overflow"),
    ("413", "context_overflow"),
    ("refused", "content_refused"),
    ("307", "provider_rejected_request"),
];

/// What a provider does that has the fault of this name.
pub(crate) fn fault_of(name: &str) -> Reply {
    match name {
        "429" => fault(429, "rate_limit_error", "Slow down.").retry_after("1"),
        "429 in the stream" => Reply::text("Well").error("rate_limit_error"),
        "529" => fault(529, "overloaded_error", "Busy."),
        "503" => fault(503, "overloaded_error", "Busy."),
        "500" => fault(500, "api_error", "Oh."),
        "502" => Reply::status(502, "<html>Bad gateway</html>"),
        "cut before its first word" => Reply::new().cut(),
        "cut" => Reply::text("Well").cut(),
        "silent in the middle" => Reply::text("Well").stall(),
        "silent from the start" => Reply::text("Well").gate_headers(&Gate::new()),
        "no JSON" => Reply::raw("text/event-stream", "data: {\"choices\": oops\n\n"),
        "no end" => Reply::raw("text/event-stream", ": nothing\n\n"),
        "a page" => Reply::raw("text/html", "<html>Log in first</html>"),
        "401" => fault(401, "authentication_error", "No such key."),
        "404" => fault(404, "not_found_error", "No such model."),
        "too long" => fault(400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
        "413" => fault(413, "request_too_large", "Too large."),
        "refused" => fault(400, "invalid_request_error", "Output blocked by content filtering policy"),
        "307" => Reply::status(307, ""),
        other => panic!("there is no fault {other:?}"),
    }
}

/// Seconds of silence that a server takes for a fault in these tests: more than a sound reply needs, on a machine of any
/// speed.
pub(crate) const SILENCE_S: &str = "15";

/// The surroundings of a server that waits for a provider's words so long and no longer.
pub(crate) async fn impatient() -> World {
    let mut world = World::sqlite().await;
    world.serve =
        world.serve.env("HERM_MODEL_FIRST_BYTE_S", SILENCE_S).env("HERM_MODEL_SILENCE_S", SILENCE_S);
    world
}

/// The same for each of the models, side by side: what is silent is waited for.
async fn ends_of_all(
    faults: &'static [(&'static str, &'static str)],
    times: usize,
) -> Vec<(&'static str, Vec<End>)> {
    let names = || faults.iter().map(|(name, _)| *name);
    join_all(MODELS.map(|model| async move { (model, ends_of(model, names(), times).await) })).await
}

/// A server whose model fails as each message says, `times` times; the ends of the runs and how often each was asked for.
async fn ends_of(model: &str, names: impl Iterator<Item = &'static str>, times: usize) -> Vec<End> {
    let world = impatient().await;
    let asked: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let counted = Arc::clone(&asked);
    world.model.respond_with(move |request| {
        let name = request.last_user_text();
        let mut counted = counted.lock().unwrap();
        let count = counted.entry(name.clone()).or_default();
        *count += 1;
        if *count > times { Reply::text("Well, yes.") } else { fault_of(&name) }
    });
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, model).await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let mut runs = Vec::new();
    for name in names {
        let answer = try_send(&client, &deployment_id, json!({"content": name, "thread_id": "new"})).await;
        runs.push((name, text(&answer.json(), "run_id")));
    }
    let mut open = runs.len();
    reader
        .until(&client, |event| {
            open -= usize::from(runs.iter().any(|(_, run_id)| is_end(event, run_id)));
            open == 0
        })
        .await;
    log::check(&reader.seen);
    let end = |(name, run_id): &(&'static str, String)| {
        let of_run = || reader.seen.iter().filter(|event| event.data["run_id"] == **run_id);
        let said = of_run().filter(|event| event.name == "message" && event.data["role"] == "agent");
        End {
            name,
            status: of_run().next_back().unwrap().data.clone(),
            said: said.map(|event| event.data.clone()).collect(),
            asked: asked.lock().unwrap()[*name],
        }
    };
    runs.iter().map(end).collect()
}

struct End {
    name: &'static str,
    status: Value,
    said: Vec<Value>,
    asked: usize,
}

const MODELS: [&str; 2] = ["anthropic/claude-sonnet-4.5", "openai/gpt-5"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passes_is_tried_again() {
    for (model, ends) in ends_of_all(&PASSING, 1).await {
        for end in ends {
            assert_eq!(end.status["status"], "completed", "{model}, {}", end.name);
            assert_eq!(end.said.len(), 1, "{model}, {}: {:?}", end.name, end.said);
            assert_eq!(end.said[0]["content"], "Well, yes.", "{model}, {}", end.name);
            assert_eq!(end.asked, 2, "{model}, {}", end.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_passes_ends_the_run_with_its_code() {
    for (model, ends) in ends_of_all(&PASSING, 5).await {
        for (end, (_, code)) in ends.iter().zip(PASSING) {
            assert_eq!(
                (&end.status["status"], &end.status["error"]["code"]),
                (&json!("error"), &json!(code))
            );
            assert_eq!(end.asked, 5, "{model}, {}", end.name);
            assert!(end.said.iter().all(|said| said["truncated"] == true), "{model}, {}", end.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_pass_ends_the_run_at_once() {
    for (model, ends) in ends_of_all(&LASTING, 5).await {
        for (end, (_, code)) in ends.iter().zip(LASTING) {
            assert_eq!(
                (&end.status["status"], &end.status["error"]["code"]),
                (&json!("error"), &json!(code))
            );
            assert_eq!(end.asked, 1, "{model}, {}", end.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_reply_is_asked_about_and_three_in_a_row_end_the_run() {
    for model in MODELS {
        let world = World::sqlite().await;
        let reader = run(&world, model, [Reply::new(), Reply::text("Here I am.")]).await;
        assert_eq!(end(&reader)["status"], "completed", "{model}");
        assert_eq!(said(&reader), [("Here I am.".to_owned(), false)], "{model}");
        let world = World::sqlite().await;
        let reader = run(&world, model, [Reply::new(), Reply::new(), Reply::new()]).await;
        assert_eq!(end(&reader)["error"]["code"], "empty_reply", "{model}");
        assert_eq!(world.model.request_count(), 3);
    }
}

/// A provider that is slow to begin is waited for, and what it says is passed on at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_model_is_heard_word_by_word() {
    for model in MODELS {
        let world = World::sqlite().await;
        let gates = [Gate::new(), Gate::new(), Gate::new()];
        let slow = Reply::text("One, ").gate_headers(&gates[0]).gate(&gates[1]).then_text("two, ");
        world.model.push(slow.gate(&gates[2]).then_text("three."));
        let server = world.start().await;
        let client = world.client_of(&server);
        let deployment_id = create(&client, model).await;
        let mut reader = Reader::from_the_start(&deployment_id);
        let run_id = send(&client, &deployment_id, "Count.").await;
        gates[0].reached().await;
        // Each word is on the stream while the model is silent behind it.
        for (gate, word) in gates.iter().zip(["One, ", "two, "]) {
            gate.open();
            reader.until(&client, |event| event.data["delta"] == word).await;
        }
        gates[2].open();
        assert_eq!(reader.until_ended(&client, &run_id).await, "completed");
        assert_eq!(said(&reader), [("One, two, three.".to_owned(), false)]);
        log::check(&reader.seen);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_breaks_leaves_no_doubled_text() {
    for model in ["anthropic/claude-sonnet-4.5", "openai/gpt-5"] {
        let world = World::sqlite().await;
        let broken = [
            Reply::text("One, two").cut(),
            Reply::text("One, ").then_text("two, three").error("overloaded_error"),
            Reply::text("One, two, three, four."),
        ];
        let reader = run(&world, model, broken).await;
        assert_eq!(end(&reader)["status"], "completed");
        assert_eq!(said(&reader), [("One, two, three, four.".to_owned(), false)], "{model}");
        assert_eq!(world.model.request_count(), 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_without_a_key_is_named() {
    let world = World::sqlite().await;
    let reader = run(&world, "openrouter/some/model", []).await;
    assert_eq!(end(&reader)["error"]["code"], "provider_not_configured");
    let message = end(&reader)["error"]["message"].as_str().unwrap();
    assert!(message.contains("OPENROUTER_API_KEY"), "{message}");
    assert_eq!(world.model.request_count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_keeps_failing_ends_the_run_and_closes_what_was_said() {
    let world = World::sqlite().await;
    let reader = run(&world, "anthropic/claude-sonnet-4.5", (0..5).map(|_| Reply::text("Well").cut())).await;
    assert_eq!(end(&reader)["status"], "error");
    assert_eq!(world.model.request_count(), 5);
    assert_eq!(said(&reader), [("Well".to_owned(), true)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_answers_again_after_a_run_that_failed() {
    let world = World::sqlite().await;
    world.model.push(fault(401, "authentication_error", "No."));
    world.model.push(Reply::text("Now."));
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "anthropic/claude-sonnet-4.5").await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let first = send(&client, &deployment_id, "Hello?").await;
    assert_eq!(reader.until_ended(&client, &first).await, "error");
    let second = send(&client, &deployment_id, "Still there?").await;
    assert_eq!(reader.until_ended(&client, &second).await, "completed");
    log::check(&reader.seen);
    let asked = world.model.requests().pop().unwrap();
    assert!(asked.body().to_string().contains("Hello?"), "what was not answered is not forgotten");
    assert_eq!(asked.last_user_text(), "Still there?");
}
