//! An agent whose model fails, and who has others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use herm_testkit::client::Client;
use herm_testkit::model_server::{RecordedRequest, Reply, WireFormat};
use serde_json::{Value, json};

use crate::log;
use crate::provider_faults::{LASTING, PASSING, fault, fault_of, impatient};
use crate::reader::{Reader, is_end};
use crate::world::{World, deployment_of, on_both_databases, send, text, try_send};

const ANTHROPIC: &str = "anthropic/claude-sonnet-4.5";
const OPENAI: &str = "openai/gpt-5";

on_both_databases!(a_change_of_models_survives_a_kill);

async fn create(client: &Client, model: &str, fallback_models: &[&str]) -> String {
    let mut body = deployment_of(model);
    body["fallback_models"] = json!(fallback_models);
    let answer = client.post("/v1/deployments", &body).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
    text(&answer.json(), "deployment_id")
}

async fn run_of(client: &Client, deployment_id: &str, run_id: &str) -> Value {
    client.get(&format!("/v1/deployments/{deployment_id}/runs/{run_id}")).await.unwrap().json()
}

async fn steps_of(client: &Client, deployment_id: &str, run_id: &str) -> Vec<String> {
    let path = format!("/v1/deployments/{deployment_id}/runs/{run_id}/steps");
    let steps = client.get(&path).await.unwrap().json();
    steps["data"].as_array().unwrap().iter().map(|step| text(step, "name")).collect()
}

/// How often each message's model was asked, by wire format.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<HashMap<(String, WireFormat), usize>>>);

impl Asked {
    fn count(&self, request: &RecordedRequest) {
        let key = (request.last_user_text(), request.wire_format().unwrap());
        *self.0.lock().unwrap().entry(key).or_default() += 1;
    }

    fn of(&self, message: &str, format: WireFormat) -> usize {
        self.0.lock().unwrap().get(&(message.to_owned(), format)).copied().unwrap_or_default()
    }
}

async fn every_fault_goes_where_it_should(model: &str, broken: WireFormat, other_model: &str) {
    let world = impatient().await;
    let asked = Asked::default();
    let counted = asked.clone();
    world.model.respond_with(move |request| {
        counted.count(request);
        if request.wire_format() == Some(broken) {
            fault_of(&request.last_user_text())
        } else {
            Reply::text("From the other.")
        }
    });
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, model, &[other_model]).await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let mut runs = Vec::new();
    let lasting = LASTING.into_iter().map(|(name, _)| name);
    for name in PASSING.into_iter().map(|(name, _)| name).chain(lasting) {
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
    let other = if broken == WireFormat::Anthropic { WireFormat::OpenAiChat } else { WireFormat::Anthropic };
    for (name, run_id) in &runs {
        let run = run_of(&client, &deployment_id, run_id).await;
        if *name == "refused" {
            assert_eq!((&run["status"], &run["error"]["code"]), (&json!("error"), &json!("content_refused")));
            assert_eq!(asked.of(name, other), 0, "a refusal stands");
            continue;
        }
        assert_eq!(run["status"], "completed", "{name}: {run}");
        let once = LASTING.iter().any(|(lasting, _)| lasting == name) || name.starts_with("silent");
        let times = if once { 1 } else { 2 };
        assert_eq!((asked.of(name, broken), asked.of(name, other)), (times, 1), "{name}");
        assert_eq!(steps_of(&client, &deployment_id, run_id).await, [other_model], "{name}");
        let models = run["usage"]["models"].as_array().unwrap();
        assert_eq!((models.len(), &models[0]["model"]), (1, &json!(other_model)), "{name}");
        assert_eq!(models[0]["tokens"], run["usage"]["tokens"], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_anthropics_format_goes_where_it_should() {
    every_fault_goes_where_it_should(ANTHROPIC, WireFormat::Anthropic, OPENAI).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_openais_format_goes_where_it_should() {
    every_fault_goes_where_it_should(OPENAI, WireFormat::OpenAiChat, ANTHROPIC).await;
}

/// What the first model has said stands and is closed; the other's words come whole, under an id of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_models_words_are_told_apart() {
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
    let said: Vec<Value> = reader.of("message").into_iter().skip(1).map(|event| event.data.clone()).collect();
    assert_eq!((&said[0]["content"], &said[0]["truncated"]), (&json!("It is se"), &json!(true)));
    assert_eq!(said[1]["content"], "Eight.");
    assert_eq!(said.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_are_tried_in_order_and_those_without_a_key_are_passed_over() {
    let world = World::sqlite().await;
    let server = world.start().await;
    let client = world.client_of(&server);
    let models = ["openrouter/nobody", OPENAI, "anthropic/claude-haiku-4.5"];
    let deployment_id = create(&client, ANTHROPIC, &models).await;
    let mut reader = Reader::from_the_start(&deployment_id);
    for _ in 0..3 {
        world.model.push(fault(401, "authentication_error", "No."));
    }
    let run_id = send(&client, &deployment_id, "Hello?").await;
    assert_eq!(reader.until_ended(&client, &run_id).await, "error");
    let error = reader.seen.last().unwrap().data["error"].clone();
    assert_eq!(error["code"], "provider_authentication");
    let message = text(&error, "message");
    assert!(message.contains("anthropic/claude-haiku-4.5 was asked because"), "{message}");
    let asked: Vec<String> = world.model.requests().iter().map(RecordedRequest::model).collect();
    assert_eq!(asked, ["claude-sonnet-4.5", "gpt-5", "claude-haiku-4.5"]);
    log::check(&reader.seen);
}

/// A model that stands in goes on with the run; the next run begins with the agent's own again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stand_in_goes_on_until_the_end_of_the_run() {
    let world = World::sqlite().await;
    world.model.push(fault(400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"));
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

/// Empty replies are asked about; the last time, another model is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_says_nothing_is_replaced() {
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

/// That another model is to be asked is a row: who dies then does not ask the first one again.
async fn a_change_of_models_survives_a_kill(world: World) {
    world.model.push(fault(401, "authentication_error", "No."));
    world.model.push(Reply::text("From the other."));
    let dying = world.serve.clone().env("HERM_FAULT_POINT", "commit.after:wait_to_call_again");
    let server = crate::world::start(&dying).await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, ANTHROPIC, &[OPENAI]).await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "Hello?").await;
    server.wait().await.unwrap();
    let server = world.start().await;
    let client = world.client_of(&server);
    assert_eq!(reader.until_ended(&client, &run_id).await, "completed");
    let asked: Vec<String> = world.model.requests().iter().map(RecordedRequest::model).collect();
    assert_eq!(asked, ["claude-sonnet-4.5", "gpt-5"]);
    log::check(&reader.seen);
}
