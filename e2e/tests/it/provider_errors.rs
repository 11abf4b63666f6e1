//! Tests of errors from model providers: which errors are retried, which end the run, and which error code the client
//! receives.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use herm_testkit::model_server::{Gate, Reply};
use herm_testkit::process::wait_until;
use serde_json::{Value, json};

use crate::log;
use crate::reader::{Reader, is_end};
use crate::world::{World, create, send, start, text, try_send};

/// Executes one run in which the model calls receive these replies, in order. Returns a reader that has received all
/// events of the run.
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

/// Returns the text of each agent message, and a flag that is true if the message was truncated.
fn agent_messages(reader: &Reader) -> Vec<(String, bool)> {
    let messages = reader.named("message").into_iter().filter(|event| event.data["role"] == "agent");
    messages
        .map(|event| (event.data["content"].as_str().unwrap().to_owned(), event.data["truncated"] == true))
        .collect()
}

pub(crate) fn model_error(status: u16, kind: &str, message: &str) -> Reply {
    Reply::status(status, json!({"type": "error", "error": {"type": kind, "message": message}}))
}

/// Transient errors of a provider. Each entry is a name that [`error_of`] accepts, and the error code of a run that
/// ends because of this error.
pub(crate) static TRANSIENT: [(&str, &str); 13] = [
    ("429", "provider_rate_limited"),
    ("429 in the stream", "provider_rate_limited"),
    ("529", "provider_overloaded"),
    ("503", "provider_overloaded"),
    ("500", "provider_error"),
    ("502", "provider_error"),
    ("cut before the first text", "provider_unreachable"),
    ("cut", "provider_unreachable"),
    ("silent after the first text", "provider_stalled"),
    ("silent from the start", "provider_stalled"),
    ("invalid JSON", "provider_malformed_response"),
    ("no final event", "provider_unreachable"),
    ("an HTML page", "provider_malformed_response"),
];

/// Permanent errors of a provider. Each entry is a name that [`error_of`] accepts, and the error code of a run that
/// ends because of this error.
pub(crate) static PERMANENT: [(&str, &str); 6] = [
    ("401", "provider_authentication"),
    ("404", "provider_rejected_request"),
    ("too long", "context_overflow"),
    ("413", "context_overflow"),
    ("refused", "content_refused"),
    ("307", "provider_rejected_request"),
];

/// Returns the provider's reply for an error name from [`TRANSIENT`] or [`PERMANENT`].
pub(crate) fn error_of(name: &str) -> Reply {
    match name {
        "429" => model_error(429, "rate_limit_error", "Slow down.").retry_after("1"),
        "429 in the stream" => Reply::text("Well").error("rate_limit_error"),
        "529" => model_error(529, "overloaded_error", "Busy."),
        "503" => model_error(503, "overloaded_error", "Busy."),
        "500" => model_error(500, "api_error", "Oh."),
        "502" => Reply::status(502, "<html>Bad gateway</html>"),
        "cut before the first text" => Reply::new().cut(),
        "cut" => Reply::text("Well").cut(),
        "silent after the first text" => Reply::text("Well").stall(),
        "silent from the start" => Reply::text("Well").gate_headers(&Gate::new()),
        "invalid JSON" => Reply::raw("text/event-stream", "data: {\"choices\": oops\n\n"),
        "no final event" => Reply::raw("text/event-stream", ": nothing\n\n"),
        "an HTML page" => Reply::raw("text/html", "<html>Log in first</html>"),
        "401" => model_error(401, "authentication_error", "No such key."),
        "404" => model_error(404, "not_found_error", "No such model."),
        "too long" => model_error(400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
        "413" => model_error(413, "request_too_large", "Too large."),
        "refused" => model_error(400, "invalid_request_error", "Output blocked by content filtering policy"),
        "307" => Reply::status(307, ""),
        other => panic!("unknown error {other:?}"),
    }
}

/// The timeouts of model calls in these tests, in seconds. They are short, but longer than a normal reply takes on a
/// busy machine.
const MODEL_TIMEOUT_S: &str = "15";

/// Creates a test environment whose server aborts a model call if the provider sends nothing for [`MODEL_TIMEOUT_S`]
/// seconds.
pub(crate) async fn world_with_short_model_timeouts() -> World {
    let mut world = World::sqlite().await;
    world.serve = world
        .serve
        .env("HERM_MODEL_FIRST_BYTE_S", MODEL_TIMEOUT_S)
        .env("HERM_MODEL_SILENCE_S", MODEL_TIMEOUT_S);
    world
}

/// Calls [`results_of`] for all models. The calls are executed in parallel, because each waits until model calls time
/// out.
async fn results_of_all_models(
    errors: &'static [(&'static str, &'static str)],
    times: usize,
) -> Vec<(&'static str, Vec<RunResult>)> {
    let names = || errors.iter().map(|(name, _)| *name);
    join_all(MODELS.map(|model| async move { (model, results_of(model, names(), times).await) })).await
}

/// Executes one run per error name. In each run, the model fails `times` times with that error and then replies.
/// Returns the results of the runs.
async fn results_of(model: &str, names: impl Iterator<Item = &'static str>, times: usize) -> Vec<RunResult> {
    let world = world_with_short_model_timeouts().await;
    let calls: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let counts = Arc::clone(&calls);
    world.model.respond_with(move |request| {
        let name = request.last_user_text();
        let mut counts = counts.lock().unwrap();
        let count = counts.entry(name.clone()).or_default();
        *count += 1;
        if *count > times { Reply::text("Well, yes.") } else { error_of(&name) }
    });
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, model).await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let mut runs = Vec::new();
    for name in names {
        let response = try_send(&client, &deployment_id, json!({"content": name, "thread_id": "new"})).await;
        runs.push((name, text(&response.json(), "run_id")));
    }
    let mut open = runs.len();
    reader
        .until(&client, |event| {
            open -= usize::from(runs.iter().any(|(_, run_id)| is_end(event, run_id)));
            open == 0
        })
        .await;
    log::check(&reader.seen);
    let result = |(name, run_id): &(&'static str, String)| {
        let run_events = || reader.seen.iter().filter(|event| event.data["run_id"] == **run_id);
        let messages = run_events().filter(|event| event.name == "message" && event.data["role"] == "agent");
        RunResult {
            name,
            status: run_events().next_back().unwrap().data.clone(),
            messages: messages.map(|event| event.data.clone()).collect(),
            calls: calls.lock().unwrap()[*name],
        }
    };
    runs.iter().map(result).collect()
}

struct RunResult {
    name: &'static str,
    /// The data of the run's last event, which contains the run's final status.
    status: Value,
    /// The data of the agent's `message` events.
    messages: Vec<Value>,
    /// The number of model calls made during the run, including failed attempts.
    calls: usize,
}

const MODELS: [&str; 2] = ["anthropic/claude-sonnet-4.5", "openai/gpt-5"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transient_errors_are_retried() {
    for (model, results) in results_of_all_models(&TRANSIENT, 1).await {
        for result in results {
            assert_eq!(result.status["status"], "completed", "{model}, {}", result.name);
            assert_eq!(result.messages.len(), 1, "{model}, {}: {:?}", result.name, result.messages);
            assert_eq!(result.messages[0]["content"], "Well, yes.", "{model}, {}", result.name);
            assert_eq!(result.calls, 2, "{model}, {}", result.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transient_error_that_persists_ends_the_run_with_its_code() {
    for (model, results) in results_of_all_models(&TRANSIENT, 5).await {
        for (result, (_, code)) in results.iter().zip(TRANSIENT) {
            assert_eq!(
                (&result.status["status"], &result.status["error"]["code"]),
                (&json!("error"), &json!(code))
            );
            assert_eq!(result.calls, 5, "{model}, {}", result.name);
            assert!(
                result.messages.iter().all(|message| message["truncated"] == true),
                "{model}, {}",
                result.name
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permanent_errors_end_the_run_immediately() {
    for (model, results) in results_of_all_models(&PERMANENT, 5).await {
        for (result, (_, code)) in results.iter().zip(PERMANENT) {
            assert_eq!(
                (&result.status["status"], &result.status["error"]["code"]),
                (&json!("error"), &json!(code))
            );
            assert_eq!(result.calls, 1, "{model}, {}", result.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_reply_is_retried_and_the_third_in_a_row_ends_the_run() {
    for model in MODELS {
        let world = World::sqlite().await;
        let reader = run(&world, model, [Reply::new(), Reply::text("Here I am.")]).await;
        assert_eq!(end(&reader)["status"], "completed", "{model}");
        assert_eq!(agent_messages(&reader), [("Here I am.".to_owned(), false)], "{model}");
        let world = World::sqlite().await;
        let reader = run(&world, model, [Reply::new(), Reply::new(), Reply::new()]).await;
        assert_eq!(end(&reader)["error"]["code"], "empty_reply", "{model}");
        assert_eq!(world.model.request_count(), 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_of_a_slow_model_is_published_immediately() {
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
        // The client must receive each piece of text while the rest of the reply is still paused.
        for (gate, word) in gates.iter().zip(["One, ", "two, "]) {
            gate.open();
            reader.until(&client, |event| event.data["delta"] == word).await;
        }
        gates[2].open();
        assert_eq!(reader.until_ended(&client, &run_id).await, "completed");
        assert_eq!(agent_messages(&reader), [("One, two, three.".to_owned(), false)]);
        log::check(&reader.seen);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_model_stream_doubles_no_text() {
    for model in ["anthropic/claude-sonnet-4.5", "openai/gpt-5"] {
        let world = World::sqlite().await;
        let broken = [
            Reply::text("One, two").cut(),
            Reply::text("One, ").then_text("two, three").error("overloaded_error"),
            Reply::text("One, two, three, four."),
        ];
        let reader = run(&world, model, broken).await;
        assert_eq!(end(&reader)["status"], "completed");
        assert_eq!(agent_messages(&reader), [("One, two, three, four.".to_owned(), false)], "{model}");
        assert_eq!(world.model.request_count(), 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_error_of_a_provider_without_a_key_names_the_missing_setting() {
    let world = World::sqlite().await;
    let reader = run(&world, "openrouter/some/model", []).await;
    assert_eq!(end(&reader)["error"]["code"], "provider_not_configured");
    let message = end(&reader)["error"]["message"].as_str().unwrap();
    assert!(message.contains("OPENROUTER_API_KEY"), "{message}");
    assert_eq!(world.model.request_count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_keeps_failing_ends_the_run_and_truncates_its_message() {
    let world = World::sqlite().await;
    let reader = run(&world, "anthropic/claude-sonnet-4.5", (0..5).map(|_| Reply::text("Well").cut())).await;
    assert_eq!(end(&reader)["status"], "error");
    assert_eq!(world.model.request_count(), 5);
    assert_eq!(agent_messages(&reader), [("Well".to_owned(), true)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_replies_again_after_a_failed_run() {
    let world = World::sqlite().await;
    world.model.push(model_error(401, "authentication_error", "No."));
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
    let request = world.model.requests().pop().unwrap();
    assert!(
        request.body().to_string().contains("Hello?"),
        "the message of the failed run remains in the context"
    );
    assert_eq!(request.last_user_text(), "Still there?");
}

/// All log lines of a run are in a span with the ids of the run, so that an operator can find them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_line_of_a_run_names_the_run() {
    const LINE: &str = "a model call attempt failed";
    let world = World::sqlite().await;
    world.model.push(model_error(401, "authentication_error", "no"));
    let server = start(&world.serve.clone().env("HERM_LOG_FORMAT", "json")).await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "anthropic/claude-sonnet-4.5").await;
    let run_id = send(&client, &deployment_id, "Hello?").await;
    wait_until(|| server.log().contains(LINE)).await;
    let log = server.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let [line] =
        <[Value; 1]>::try_from(lines.filter(|line| line["fields"]["message"] == LINE).collect::<Vec<_>>())
            .unwrap();
    assert_eq!((&line["span"]["name"], &line["span"]["run_id"]), (&json!("run"), &json!(run_id)), "{line}");
    assert_eq!(line["span"]["deployment_id"], json!(deployment_id), "{line}");
}
