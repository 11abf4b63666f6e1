//! Model providers that fail: what is tried again, what ends the run, and what a client sees of it.

use herm_testkit::model_server::Reply;
use serde_json::{Value, json};

use crate::log;
use crate::reader::Reader;
use crate::world::{World, create, send};

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

fn fault(status: u16, kind: &str) -> Reply {
    Reply::status(status, json!({"type": "error", "error": {"type": kind, "message": "No."}}))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passes_is_tried_again() {
    for first in [fault(429, "rate_limit_error"), fault(529, "overloaded_error"), fault(500, "api_error")] {
        let world = World::sqlite().await;
        let reader = run(&world, "anthropic/claude-sonnet-4.5", [first, Reply::text("Yes.")]).await;
        assert_eq!(end(&reader)["status"], "completed");
        assert_eq!(said(&reader), [("Yes.".to_owned(), false)]);
        assert_eq!(world.model.request_count(), 2);
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
async fn what_does_not_pass_ends_the_run_with_its_code() {
    for (reply, code) in [
        (fault(401, "authentication_error"), "provider_authentication"),
        (fault(400, "invalid_request_error"), "provider_rejected_request"),
    ] {
        let world = World::sqlite().await;
        let reader = run(&world, "anthropic/claude-sonnet-4.5", [reply]).await;
        assert_eq!(end(&reader)["status"], "error");
        assert_eq!(end(&reader)["error"]["code"], code);
        assert_eq!(world.model.request_count(), 1);
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
    world.model.push(fault(401, "authentication_error"));
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
