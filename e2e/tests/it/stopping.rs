//! What a server does when it is told to stop, and what keeps two servers apart.

use herm_testkit::model_server::{Gate, Reply};
use herm_testkit::process::wait_until;

use crate::reader::Reader;
use crate::world::{World, create, on_both_databases, send, start, try_send};
use crate::{log, scripts};

on_both_databases!(
    a_server_that_is_told_to_stop_ends_its_runs_first,
    a_second_server_on_one_database_refuses_to_start,
);

async fn a_server_that_is_told_to_stop_ends_its_runs_first(world: World) {
    let gate = Gate::new();
    world.model.respond_with(scripts::use_shell_and_wait("echo once >> log.txt", &gate));
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "anthropic/claude-sonnet-4.5").await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "Write it.").await;
    reader.until(&client, |event| event.data["delta"] == scripts::ANSWER[0]).await;
    gate.reached().await;
    server.terminate().unwrap();
    // Its stream ends at once, and the client is told when to come back.
    reader.drain().await;
    assert!(reader.retry_ms().is_some());
    let refused = try_send(&client, &deployment_id, serde_json::json!({"content": "And this?"})).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.json()["error"], "unavailable");
    assert!(refused.headers.contains_key("retry-after"));
    gate.open();
    let finished = server.wait().await.unwrap();
    assert!(finished.status.success(), "{finished:?}");

    let server = world.start().await;
    let client = world.client_of(&server);
    assert_eq!(reader.until_ended(&client, &run_id).await, "completed");
    log::check(&reader.seen);
    // The run was ended by the first server: the second one asked the model nothing.
    assert_eq!(world.model.request_count(), 2);
    wait_until(|| !world.sandbox_dir(&deployment_id).join("run").exists()).await;
}

async fn a_second_server_on_one_database_refuses_to_start(world: World) {
    let first = world.start().await;
    let refused = world.serve.serve().await.unwrap().unwrap_err();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("another herm server"), "{}", refused.stderr);
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    // The first one is none the worse for it, and once it is gone there is room.
    let client = world.client_of(&first);
    assert_eq!(client.get("/v1/deployments").await.unwrap().status, 200);
    first.kill().await.unwrap();
    world.start().await;
}

/// A run that does not end in time is gone on with by the next server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_outlasts_the_drain_goes_on_afterwards() {
    let world = World::sqlite().await;
    world.model.push(Reply::text("It ").stall());
    world.model.push(Reply::text("It ").then_text("is."));
    let server = start(&world.serve.clone().env("FAULT_POINTS_DRAIN_S", "1")).await;
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
    assert_eq!(reader.of("message").last().unwrap().data["content"], "It is.");
}
