//! Tests that delete a deployment at each stage of an active run, and that kill the server during the deletion.

use herm_testkit::client::Client;
use herm_testkit::events::Event;
use herm_testkit::model_server::{Gate, Reply};
use herm_testkit::process::{Server, processes_that_mention, wait_until};
use serde_json::json;

use crate::model_scripts;
use crate::reader::Reader;
use crate::world::{World, create, on_both_databases, send, start};

on_both_databases!(
    a_deletion_at_any_stage_of_a_run_leaves_nothing,
    a_deletion_that_is_interrupted_by_a_kill_is_completed_by_the_next_server,
);

/// Makes the next run pause three times: during the model's first reply, during the command that this reply requests,
/// and during the last reply. Returns the gates of the two replies: opening a gate continues its reply. Creating the
/// file `go` in the workspace ends the command.
fn slow_run(world: &World) -> [Gate; 2] {
    let gates = [Gate::new(), Gate::new()];
    let [first, last] = gates.clone();
    world.model.respond_with(move |request| match request.tool_results_since_user().len() {
        0 => Reply::text("I begin").gate(&first).then_text(".").tool_call(
            "shell",
            model_scripts::shell("setsid sleep 600 & touch started; until test -e go; do sleep 0.02; done"),
        ),
        _ => Reply::text("It is").gate(&last).then_text(" done."),
    });
    gates
}

/// The stages of a run at which its deployment is deleted, each as an event type and a number. The stage is reached
/// once a client has received this number of events of this type.
const STAGES: [(&str, usize); 5] =
    [("run_status", 1), ("run_status", 2), ("token", 1), ("tool_call", 1), ("tool_result", 1)];

/// Creates a deployment, starts a run, and waits until the run reaches the given stage. Returns the reader of the
/// deployment's events, and the deployment's id.
async fn run_to_stage(
    world: &World,
    client: &Client,
    gates: &[Gate; 2],
    (name, times): (&str, usize),
) -> (Reader, String) {
    let deployment_id = create(client, "anthropic/claude-sonnet-4.5").await;
    let mut reader = Reader::from_the_start(&deployment_id);
    send(client, &deployment_id, "Go.").await;
    let workspace = world.workspace(&deployment_id);
    if name.starts_with("tool") {
        gates[0].open();
        wait_until(|| workspace.join("started").exists()).await;
    }
    if name == "tool_result" {
        std::fs::write(workspace.join("go"), "").unwrap();
    }
    let mut seen = 0;
    let is_reached = |event: &Event| {
        seen += usize::from(event.name == name);
        seen == times
    };
    reader.until(client, is_reached).await;
    (reader, deployment_id)
}

/// Waits until the deployment's files and processes are removed, and checks that requests for its resources return 404.
async fn wait_until_deleted(world: &World, client: &Client, deployment_id: &str) {
    let (workspace, sandbox) = (world.workspace(deployment_id), world.sandbox_dir(deployment_id));
    wait_until(|| !workspace.exists() && !sandbox.exists()).await;
    let process = world.sandbox_process(deployment_id);
    wait_until(|| processes_that_mention(&process).is_empty()).await;
    for rest in ["", "/events", "/files", "/runs", "/skills", "/tools"] {
        let response = client.get(&format!("/v1/deployments/{deployment_id}{rest}")).await.unwrap();
        assert_eq!(response.status, 404, "{rest}");
    }
    let message = json!({"content": "Still there?"});
    let response = client.post(&format!("/v1/deployments/{deployment_id}/messages"), &message).await.unwrap();
    assert_eq!(response.status, 404);
}

async fn a_deletion_at_any_stage_of_a_run_leaves_nothing(world: World) {
    let server = world.start().await;
    let client = world.client_of(&server);
    for stage in STAGES {
        let gates = slow_run(&world);
        let (mut reader, deployment_id) = run_to_stage(&world, &client, &gates, stage).await;
        let response = client.delete(&format!("/v1/deployments/{deployment_id}")).await.unwrap();
        assert_eq!((response.status.as_u16(), response.json()["status"].as_str()), (200, Some("deleted")));
        reader.drain().await;
        let numbers: Vec<u64> = reader.seen.iter().map(|event| event.number()).collect();
        assert_eq!(
            numbers,
            (1..=numbers.len() as u64).collect::<Vec<_>>(),
            "{stage:?}: the events have a gap"
        );
        let last = reader.seen.last().unwrap();
        let event = (last.name.as_str(), &last.data["status"]);
        assert_eq!(event, ("deployment_status", &json!("deleted")), "{stage:?}");
        gates.iter().for_each(Gate::open);
        wait_until_deleted(&world, &client, &deployment_id).await;
    }
}

async fn a_deletion_that_is_interrupted_by_a_kill_is_completed_by_the_next_server(world: World) {
    for point in ["commit.before:delete_deployment", "commit.after:delete_deployment", "work.taken:teardown"]
    {
        for stage in [STAGES[2], STAGES[3]] {
            let gates = slow_run(&world);
            let server = start(&world.serve.clone().env("HERM_FAILPOINT", point)).await;
            let client = world.client_of(&server);
            let (mut reader, deployment_id) = run_to_stage(&world, &client, &gates, stage).await;
            let path = format!("/v1/deployments/{deployment_id}");
            // The server is killed during the request, so the client may not receive the response.
            let deleted = client.delete(&path).await;
            server.wait().await.unwrap();
            reader.drain().await;
            gates.iter().for_each(Gate::open);
            let server = world.start().await;
            let client = world.client_of(&server);
            if point.starts_with("commit.before") {
                assert!(deleted.is_err(), "a deletion that is not durable must not be acknowledged");
            }
            let again = client.delete(&path).await.unwrap();
            assert!([200, 404].contains(&again.status.as_u16()), "{point}: {}", again.text());
            wait_until_deleted(&world, &client, &deployment_id).await;
            stop(server).await;
        }
    }
}

async fn stop(server: Server) {
    server.terminate().unwrap();
    assert!(server.wait().await.unwrap().status.success());
}
