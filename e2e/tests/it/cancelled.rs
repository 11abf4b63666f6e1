//! Tests that cancel active runs, and that delete threads with an active run.

use herm_testkit::client::{Client, Response};
use herm_testkit::model_server::{Gate, Reply};
use herm_testkit::process::wait_until;
use serde_json::json;

use crate::reader::Reader;
use crate::world::{World, create, on_both_databases, send, text, try_send};
use crate::{log, model_scripts};

on_both_databases!(
    cancelling_a_run_during_a_reply_keeps_the_published_text,
    cancelling_a_run_during_a_command_stops_the_command,
    a_run_that_waits_for_a_retry_is_cancelled_immediately,
    a_cancellation_survives_a_kill,
    deleting_a_thread_during_a_run_leaves_nothing,
);

async fn cancel(client: &Client, deployment_id: &str, run_id: &str) -> Response {
    client.post(&format!("/v1/deployments/{deployment_id}/runs/{run_id}/cancel"), &json!({})).await.unwrap()
}

async fn cancelling_a_run_during_a_reply_keeps_the_published_text(world: World) {
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
    // The reply cannot end, because the scripted model pauses it until the test opens the gate. The run must be
    // cancelled anyway.
    assert_eq!(reader.until_ended(&client, &run_id).await, "cancelled");
    let last = reader.named("message").last().unwrap().data.clone();
    assert_eq!((&last["content"], &last["truncated"]), (&json!("One, two"), &json!(true)));
    assert_eq!(cancel(&client, &deployment_id, &run_id).await.json()["status"], "cancelled");

    // The thread still accepts messages, and the next model call receives the cancelled run's truncated message.
    let next = send(&client, &deployment_id, "Go on.").await;
    assert_eq!(reader.until_ended(&client, &next).await, "completed");
    log::check(&reader.seen);
    let request = world.model.requests().pop().unwrap();
    assert_eq!(request.assistant_turns(), 1);
    assert!(request.body().to_string().contains("One, two"));
    let refused = cancel(&client, &deployment_id, &next).await;
    assert_eq!((refused.status.as_u16(), text(&refused.json(), "error")), (409, "conflict".to_owned()));
    let deployment = client.get(&format!("/v1/deployments/{deployment_id}")).await.unwrap().json();
    let thread = format!("/v1/deployments/{deployment_id}/threads/{}", text(&deployment, "thread_id"));
    let thread = client.get(&thread).await.unwrap().json();
    assert_eq!(thread["message_count"], 4);
    assert_eq!(thread["messages"][1]["truncated"], true);
}

async fn cancelling_a_run_during_a_command_stops_the_command(world: World) {
    let command = "echo started > log.txt; sleep 6543";
    world.model.respond_with(model_scripts::use_shell(command));
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
    let result = &reader.named("tool_result")[0].data;
    assert_eq!(result["is_error"], true);
    assert!(text(result, "result").starts_with("Cancelled"), "{result}");
    // The sandbox is still running. In it, a second command waits until the first command's process `sleep 6543` has
    // exited. The number is split (`n=65`, `${n}43`) so that the second command does not find its own command line.
    let probe =
        "n=65; while cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -q \"sleep ${n}43\"; do sleep 0.02; done";
    world.model.respond_with(model_scripts::use_shell(probe));
    let next = send(&client, &deployment_id, "And now?").await;
    assert_eq!(reader.until_ended(&client, &next).await, "completed");
    log::check(&reader.seen);
}

async fn a_run_that_waits_for_a_retry_is_cancelled_immediately(world: World) {
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
        let launch = world.serve.clone().env("HERM_FAILPOINT", point);
        let server = crate::world::start(&launch).await;
        let client = world.client_of(&server);
        world.model.push(Reply::text("One, two").gate(&gate));
        let deployment_id = create(&client, "anthropic/claude-sonnet-4.5").await;
        let mut reader = Reader::from_the_start(&deployment_id);
        let run_id = send(&client, &deployment_id, "Count.").await;
        reader.until(&client, |event| event.name == "token").await;
        let path = format!("/v1/deployments/{deployment_id}/runs/{run_id}/cancel");
        // At each of these failpoints, the server has already stored the request to cancel the run, but may not have
        // responded yet. The result is therefore ignored.
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

async fn deleting_a_thread_during_a_run_leaves_nothing(world: World) {
    world.model.respond_with(model_scripts::use_shell("touch started; sleep 600"));
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "anthropic/claude-sonnet-4.5").await;
    let sent = try_send(&client, &deployment_id, json!({"content": "Go.", "thread_id": "new"})).await.json();
    let (thread_id, run_id) = (text(&sent, "thread_id"), text(&sent, "run_id"));
    let mut reader = Reader::from_the_start(&deployment_id);
    reader.until(&client, |event| event.name == "tool_call").await;
    let started = world.workspace(&deployment_id).join("started");
    wait_until(|| started.exists()).await;
    let path = format!("/v1/deployments/{deployment_id}/threads/{thread_id}");
    assert_eq!(client.delete(&path).await.unwrap().status, 200);
    assert_eq!(reader.until_ended(&client, &run_id).await, "cancelled");
    assert_eq!(client.get(&path).await.unwrap().status, 404);

    // Waits until the deleted thread's events are erased. Then checks that their ids are not reused and that the
    // deployment still works.
    let events = format!("/v1/deployments/{deployment_id}/events?thread_id={thread_id}");
    while !client.get_as(&events, "application/json").await.unwrap().json()["data"]
        .as_array()
        .unwrap()
        .is_empty()
    {}
    world.model.respond_with(model_scripts::echo());
    let next = send(&client, &deployment_id, "Still there?").await;
    let mut late = Reader::from_the_start(&deployment_id);
    assert_eq!(late.until_ended(&client, &next).await, "completed");
    assert!(late.seen.iter().all(|event| event.data.get("thread_id") != Some(&json!(thread_id))));
    assert!(late.seen[1].number() > 2, "{:?}", late.seen);
}
