//! Tests of fallback models, which a run calls when the deployment's own model fails.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use herm_testkit::client::Client;
use herm_testkit::model_server::{RecordedRequest, Reply, WireFormat};
use serde_json::{Value, json};

use crate::log;
use crate::provider_errors::{PERMANENT, TRANSIENT, error_of, model_error, world_with_short_model_timeouts};
use crate::reader::{Reader, is_end};
use crate::world::{World, deployment_of, on_both_databases, send, text, try_send};

const ANTHROPIC: &str = "anthropic/claude-sonnet-4.5";
const OPENAI: &str = "openai/gpt-5";

on_both_databases!(a_switch_to_a_fallback_model_survives_a_kill);

async fn create(client: &Client, model: &str, fallback_models: &[&str]) -> String {
    let mut body = deployment_of(model);
    body["fallback_models"] = json!(fallback_models);
    let response = client.post("/v1/deployments", &body).await.unwrap();
    assert_eq!(response.status, 201, "{}", response.text());
    text(&response.json(), "deployment_id")
}

async fn run_of(client: &Client, deployment_id: &str, run_id: &str) -> Value {
    client.get(&format!("/v1/deployments/{deployment_id}/runs/{run_id}")).await.unwrap().json()
}

async fn steps_of(client: &Client, deployment_id: &str, run_id: &str) -> Vec<String> {
    let path = format!("/v1/deployments/{deployment_id}/runs/{run_id}/steps");
    let steps = client.get(&path).await.unwrap().json();
    steps["data"].as_array().unwrap().iter().map(|step| text(step, "name")).collect()
}

/// Counts the model calls, by the text of the run's user message and the wire format of the call.
#[derive(Clone, Default)]
struct CallCounts(Arc<Mutex<HashMap<(String, WireFormat), usize>>>);

impl CallCounts {
    fn add(&self, request: &RecordedRequest) {
        let key = (request.last_user_text(), request.wire_format().unwrap());
        *self.0.lock().unwrap().entry(key).or_default() += 1;
    }

    fn get(&self, message: &str, format: WireFormat) -> usize {
        self.0.lock().unwrap().get(&(message.to_owned(), format)).copied().unwrap_or_default()
    }
}

/// Checks that every error of `model`, except a refusal, makes the run call `other_model`. Before that, a transient
/// error other than a stalled reply is retried once with `model`.
async fn check_every_error(model: &str, broken: WireFormat, other_model: &str) {
    let world = world_with_short_model_timeouts().await;
    let calls = CallCounts::default();
    let counted = calls.clone();
    world.model.respond_with(move |request| {
        counted.add(request);
        if request.wire_format() == Some(broken) {
            error_of(&request.last_user_text())
        } else {
            Reply::text("From the fallback model.")
        }
    });
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, model, &[other_model]).await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let mut runs = Vec::new();
    let permanent = PERMANENT.into_iter().map(|(name, _)| name);
    for name in TRANSIENT.into_iter().map(|(name, _)| name).chain(permanent) {
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
    let other = if broken == WireFormat::Anthropic { WireFormat::OpenAiChat } else { WireFormat::Anthropic };
    for (name, run_id) in &runs {
        let run = run_of(&client, &deployment_id, run_id).await;
        if *name == "refused" {
            assert_eq!((&run["status"], &run["error"]["code"]), (&json!("error"), &json!("content_refused")));
            assert_eq!(calls.get(name, other), 0, "a refusal is final");
            continue;
        }
        assert_eq!(run["status"], "completed", "{name}: {run}");
        let once = PERMANENT.iter().any(|(permanent, _)| permanent == name) || name.starts_with("silent");
        let times = if once { 1 } else { 2 };
        assert_eq!((calls.get(name, broken), calls.get(name, other)), (times, 1), "{name}");
        assert_eq!(steps_of(&client, &deployment_id, run_id).await, [other_model], "{name}");
        let models = run["usage"]["models"].as_array().unwrap();
        assert_eq!((models.len(), &models[0]["model"]), (1, &json!(other_model)), "{name}");
        assert_eq!(models[0]["tokens"], run["usage"]["tokens"], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anthropic_errors_call_the_fallback_model_except_a_refusal() {
    check_every_error(ANTHROPIC, WireFormat::Anthropic, OPENAI).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openai_errors_call_the_fallback_model_except_a_refusal() {
    check_every_error(OPENAI, WireFormat::OpenAiChat, ANTHROPIC).await;
}

/// The first model fails in the middle of its reply, and again when it is retried. The text received from it becomes a
/// truncated message, and the fallback model's text becomes a new message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_text_of_a_fallback_model_becomes_a_new_message() {
    let world = World::sqlite().await;
    world.model.push(Reply::text("It is").cut());
    world.model.push(Reply::text("It is se").cut());
    world.model.push(Reply::text("Eight."));
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, ANTHROPIC, &[OPENAI]).await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "What time is it?").await;
    assert_eq!(reader.until_ended(&client, &run_id).await, "completed");
    log::check(&reader.seen);
    let messages: Vec<Value> =
        reader.named("message").into_iter().skip(1).map(|event| event.data.clone()).collect();
    assert_eq!((&messages[0]["content"], &messages[0]["truncated"]), (&json!("It is se"), &json!(true)));
    assert_eq!(messages[1]["content"], "Eight.");
    assert_eq!(messages.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fallback_models_are_called_in_order_and_those_without_a_key_are_skipped() {
    let world = World::sqlite().await;
    let server = world.start().await;
    let client = world.client_of(&server);
    let models = ["openrouter/nobody", OPENAI, "anthropic/claude-haiku-4.5"];
    let deployment_id = create(&client, ANTHROPIC, &models).await;
    let mut reader = Reader::from_the_start(&deployment_id);
    for _ in 0..3 {
        world.model.push(model_error(401, "authentication_error", "No."));
    }
    let run_id = send(&client, &deployment_id, "Hello?").await;
    assert_eq!(reader.until_ended(&client, &run_id).await, "error");
    let error = reader.seen.last().unwrap().data["error"].clone();
    assert_eq!(error["code"], "provider_authentication");
    let message = text(&error, "message");
    assert!(message.contains("anthropic/claude-haiku-4.5 was called because"), "{message}");
    let called: Vec<String> = world.model.requests().iter().map(RecordedRequest::model).collect();
    assert_eq!(called, ["claude-sonnet-4.5", "gpt-5", "claude-haiku-4.5"]);
    log::check(&reader.seen);
}

/// After a run that switched to the fallback model, the next run calls the deployment's own model again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fallback_model_is_used_until_the_end_of_the_run() {
    let world = World::sqlite().await;
    world.model.push(model_error(400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"));
    world.model.push(Reply::text("I look.").tool_call("shell", json!({"command": "echo hello"})));
    world.model.push(Reply::text("Done."));
    world.model.push(Reply::text("Again."));
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, ANTHROPIC, &[OPENAI]).await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let first = send(&client, &deployment_id, "Look.").await;
    assert_eq!(reader.until_ended(&client, &first).await, "completed");
    assert_eq!(steps_of(&client, &deployment_id, &first).await, [OPENAI, "shell", OPENAI]);
    let second = send(&client, &deployment_id, "And now?").await;
    assert_eq!(reader.until_ended(&client, &second).await, "completed");
    assert_eq!(steps_of(&client, &deployment_id, &second).await, [ANTHROPIC]);
    log::check(&reader.seen);
}

/// An empty reply is retried once with the same model. If the second reply is also empty, the fallback model is called.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_replies_lead_to_the_fallback_model() {
    let world = World::sqlite().await;
    world.model.push(Reply::new());
    world.model.push(Reply::new());
    world.model.push(Reply::text("Here I am."));
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, ANTHROPIC, &[OPENAI]).await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "Hello?").await;
    assert_eq!(reader.until_ended(&client, &run_id).await, "completed");
    assert_eq!(steps_of(&client, &deployment_id, &run_id).await, [ANTHROPIC, ANTHROPIC, OPENAI]);
    let models = run_of(&client, &deployment_id, &run_id).await["usage"]["models"].clone();
    assert_eq!((&models[0]["model"], &models[0]["model_calls"]), (&json!(ANTHROPIC), &json!(2)));
    assert_eq!((&models[1]["model"], &models[1]["model_calls"]), (&json!(OPENAI), &json!(1)));
}

/// The switch to the fallback model is stored, so the next server process does not call the first model again.
async fn a_switch_to_a_fallback_model_survives_a_kill(world: World) {
    world.model.push(model_error(401, "authentication_error", "No."));
    world.model.push(Reply::text("From the fallback model."));
    let launch = world.serve.clone().env("HERM_FAILPOINT", "commit.after:wait_to_call_again");
    let server = crate::world::start(&launch).await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, ANTHROPIC, &[OPENAI]).await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "Hello?").await;
    server.wait().await.unwrap();
    let server = world.start().await;
    let client = world.client_of(&server);
    assert_eq!(reader.until_ended(&client, &run_id).await, "completed");
    let called: Vec<String> = world.model.requests().iter().map(RecordedRequest::model).collect();
    assert_eq!(called, ["claude-sonnet-4.5", "gpt-5"]);
    log::check(&reader.seen);
}
