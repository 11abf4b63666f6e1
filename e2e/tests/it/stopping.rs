//! Tests that stop a server, and that start a second server on the same database.

use herm_testkit::model_server::{Gate, Reply};
use herm_testkit::process::wait_until;

use crate::reader::Reader;
use crate::world::{World, create, on_both_databases, send, start, try_send};
use crate::{log, model_scripts};

on_both_databases!(
    a_stopping_server_completes_its_runs_first,
    a_second_server_on_one_database_refuses_to_start,
);

async fn a_stopping_server_completes_its_runs_first(world: World) {
    let gate = Gate::new();
    world.model.respond_with(model_scripts::use_shell_and_wait("echo once >> log.txt", &gate));
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "anthropic/claude-sonnet-4.5").await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "Write it.").await;
    reader.until(&client, |event| event.data["delta"] == model_scripts::REPLY[0]).await;
    gate.reached().await;
    server.terminate().unwrap();
    // When the server starts to shut down, it immediately sends the client a reconnection time and ends the stream.
    reader.drain().await;
    assert!(reader.retry_ms().is_some());
    let response = try_send(&client, &deployment_id, serde_json::json!({"content": "And this?"})).await;
    assert_eq!(response.status, 503, "{}", response.text());
    assert_eq!(response.json()["error"], "unavailable");
    assert!(response.headers.contains_key("retry-after"));
    gate.open();
    let finished = server.wait().await.unwrap();
    assert!(finished.status.success(), "{finished:?}");

    let server = world.start().await;
    let client = world.client_of(&server);
    assert_eq!(reader.until_ended(&client, &run_id).await, "completed");
    log::check(&reader.seen);
    // The first server completed the run before it stopped, so the second server made no further model call.
    assert_eq!(world.model.request_count(), 2);
    wait_until(|| !world.sandbox_dir(&deployment_id).join("run").exists()).await;
}

async fn a_second_server_on_one_database_refuses_to_start(world: World) {
    let first = world.start().await;
    let second = world.serve.serve().await.unwrap().unwrap_err();
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    assert!(second.stderr.contains("another herm server"), "{}", second.stderr);
    assert_eq!(second.stderr.lines().count(), 1, "{}", second.stderr);
    // The first server still works. After it has exited, another server can start on the same database.
    let client = world.client_of(&first);
    assert_eq!(client.get("/v1/deployments").await.unwrap().status, 200);
    first.kill().await.unwrap();
    world.start().await;
}

/// When a server shuts down, it waits a limited time (the drain time) for its runs to end. It then interrupts any run
/// that is still active, and the next server resumes this run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_outlasts_the_drain_is_resumed() {
    let world = World::sqlite().await;
    world.model.push(Reply::text("It ").stall());
    world.model.push(Reply::text("It ").then_text("is."));
    let server = start(&world.serve.clone().env("HERM_FAILPOINT_DRAIN_S", "1")).await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "openai/gpt-5").await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "Is it?").await;
    reader.until(&client, |event| event.name == "token").await;
    server.terminate().unwrap();
    let finished = server.wait().await.unwrap();
    assert!(finished.status.success(), "{finished:?}");
    reader.drain().await;
    let server = world.start().await;
    let client = world.client_of(&server);
    assert_eq!(reader.until_ended(&client, &run_id).await, "completed");
    log::check(&reader.seen);
    assert_eq!(reader.named("message").last().unwrap().data["content"], "It is.");
}
