//! Runs that are cancelled, and threads that are deleted, while they are at work.

use herm_testkit::client::{Answer, Client};
use herm_testkit::model_server::{Gate, Reply};
use herm_testkit::process::wait_until;
use serde_json::json;

use crate::reader::Reader;
use crate::world::{World, create, on_both_databases, send, text, try_send};
use crate::{log, scripts};

on_both_databases!(
    a_run_that_is_cancelled_in_mid_answer_keeps_what_was_said,
    a_run_that_is_cancelled_in_mid_command_stops_it,
    a_run_that_waits_for_its_next_attempt_is_cancelled_at_once,
    a_cancellation_survives_a_kill,
    a_thread_that_is_deleted_in_mid_run_leaves_nothing,
);

async fn cancel(client: &Client, deployment_id: &str, run_id: &str) -> Answer {
    client.post(&format!("/v1/deployments/{deployment_id}/runs/{run_id}/cancel"), &json!({})).await.unwrap()
}

async fn a_run_that_is_cancelled_in_mid_answer_keeps_what_was_said(world: World) {
    let gate = Gate::new();
    world.model.push(Reply::text("One, two").gate(&gate).then_text(", three."));
    world.model.push(Reply::text("Four."));
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "anthropic/claude-sonnet-4.5").await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "Count.").await;
    reader.until(&client, |event| event.name == "token").await;
    assert_eq!(cancel(&client, &deployment_id, &run_id).await.status, 202);
    // The model is still silent: nothing is waited for.
    assert_eq!(reader.until_ended(&client, &run_id).await, "cancelled");
    let last = reader.of("message").last().unwrap().data.clone();
    assert_eq!((&last["content"], &last["truncated"]), (&json!("One, two"), &json!(true)));
    assert_eq!(cancel(&client, &deployment_id, &run_id).await.json()["status"], "cancelled");

    // The thread is sound, and the agent knows what it has said.
    let next = send(&client, &deployment_id, "Go on.").await;
    assert_eq!(reader.until_ended(&client, &next).await, "completed");
    log::check(&reader.seen);
    let asked = world.model.requests().pop().unwrap();
    assert_eq!(asked.assistant_turns(), 1);
    assert!(asked.body().to_string().contains("One, two"));
    let refused = cancel(&client, &deployment_id, &next).await;
    assert_eq!((refused.status.as_u16(), text(&refused.json(), "error")), (409, "conflict".to_owned()));
    let deployment = client.get(&format!("/v1/deployments/{deployment_id}")).await.unwrap().json();
    let thread = format!("/v1/deployments/{deployment_id}/threads/{}", text(&deployment, "thread_id"));
    let thread = client.get(&thread).await.unwrap().json();
    assert_eq!(thread["message_count"], 4);
    assert_eq!(thread["messages"][1]["truncated"], true);
}

async fn a_run_that_is_cancelled_in_mid_command_stops_it(world: World) {
    let command = "echo begun > log.txt; sleep 6543";
    world.model.respond_with(scripts::use_shell(command));
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "openai/gpt-5").await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "Go.").await;
    let log_file = world.workspace(&deployment_id).join("log.txt");
    wait_until(|| log_file.exists()).await;
    assert_eq!(cancel(&client, &deployment_id, &run_id).await.status, 202);
    assert_eq!(reader.until_ended(&client, &run_id).await, "cancelled");
    log::check(&reader.seen);
    let result = &reader.of("tool_result")[0].data;
    assert_eq!(result["is_error"], true);
    assert!(text(result, "result").starts_with("Cancelled"), "{result}");
    // The command itself is gone: in the sandbox that goes on, another one finds nothing of it.
    let probe =
        "n=65; while cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -q \"sleep ${n}43\"; do sleep 0.02; done";
    world.model.respond_with(scripts::use_shell(probe));
    let next = send(&client, &deployment_id, "And now?").await;
    assert_eq!(reader.until_ended(&client, &next).await, "completed");
    log::check(&reader.seen);
}

async fn a_run_that_waits_for_its_next_attempt_is_cancelled_at_once(world: World) {
    let busy = json!({"error": {"type": "overloaded_error", "message": "later"}});
    world.model.push(Reply::status(529, busy).retry_after("50"));
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "anthropic/claude-sonnet-4.5").await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "Hello?").await;
    world.model.wait_for_requests(1).await;
    assert_eq!(cancel(&client, &deployment_id, &run_id).await.status, 202);
    assert_eq!(reader.until_ended(&client, &run_id).await, "cancelled");
    log::check(&reader.seen);
    assert_eq!(world.model.request_count(), 1);
}

async fn a_cancellation_survives_a_kill(world: World) {
    let gate = Gate::new();
    world.model.push(Reply::text("One, two").gate(&gate));
    for point in ["commit.after:request_cancel", "commit.before:cancel_run", "commit.after:cancel_run"] {
        let doomed = world.serve.clone().env("HERM_FAULT_POINT", point);
        let server = crate::world::start(&doomed).await;
        let client = world.client_of(&server);
        world.model.push(Reply::text("One, two").gate(&gate));
        let deployment_id = create(&client, "anthropic/claude-sonnet-4.5").await;
        let mut reader = Reader::from_the_start(&deployment_id);
        let run_id = send(&client, &deployment_id, "Count.").await;
        reader.until(&client, |event| event.name == "token").await;
        let path = format!("/v1/deployments/{deployment_id}/runs/{run_id}/cancel");
        // The answer may be lost with the server; the cancellation is not.
        let _ = client.post(&path, &json!({})).await;
        server.wait().await.unwrap();
        reader.drain().await;
        let server = world.start().await;
        let client = world.client_of(&server);
        assert_eq!(reader.until_ended(&client, &run_id).await, "cancelled", "{point}");
        log::check(&reader.seen);
        server.kill().await.unwrap();
    }
}

async fn a_thread_that_is_deleted_in_mid_run_leaves_nothing(world: World) {
    world.model.respond_with(scripts::use_shell("touch begun; sleep 600"));
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "anthropic/claude-sonnet-4.5").await;
    let sent = try_send(&client, &deployment_id, json!({"content": "Go.", "thread_id": "new"})).await.json();
    let (thread_id, run_id) = (text(&sent, "thread_id"), text(&sent, "run_id"));
    let mut reader = Reader::from_the_start(&deployment_id);
    reader.until(&client, |event| event.name == "tool_call").await;
    let begun = world.workspace(&deployment_id).join("begun");
    wait_until(|| begun.exists()).await;
    let path = format!("/v1/deployments/{deployment_id}/threads/{thread_id}");
    assert_eq!(client.delete(&path).await.unwrap().status, 200);
    assert_eq!(reader.until_ended(&client, &run_id).await, "cancelled");
    assert_eq!(client.get(&path).await.unwrap().status, 404);

    // Its events go, and their ids are skipped; the deployment works on.
    let events = format!("/v1/deployments/{deployment_id}/events?thread_id={thread_id}");
    while !client.get_as(&events, "application/json").await.unwrap().json()["data"]
        .as_array()
        .unwrap()
        .is_empty()
    {}
    world.model.respond_with(scripts::echo());
    let next = send(&client, &deployment_id, "Still there?").await;
    let mut late = Reader::from_the_start(&deployment_id);
    assert_eq!(late.until_ended(&client, &next).await, "completed");
    assert!(late.seen.iter().all(|event| event.data.get("thread_id") != Some(&json!(thread_id))));
    assert!(late.seen[1].number() > 2, "{:?}", late.seen);
}
