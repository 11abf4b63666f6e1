//! A deployment that is deleted while its agent works, at each moment of a run, and through kills.

use herm_testkit::client::Client;
use herm_testkit::events::Event;
use herm_testkit::model_server::{Gate, Reply};
use herm_testkit::process::{Server, processes_that_mention, wait_until};
use serde_json::json;

use crate::reader::Reader;
use crate::scripts;
use crate::world::{World, create, on_both_databases, send, start};

on_both_databases!(
    at_every_moment_of_a_run_nothing_is_left,
    a_server_that_is_killed_while_it_deletes_ends_what_it_began,
);

/// A run that stays at each of its moments until it is let on: in mid-stream, in mid-command, and in its last words.
fn slow_run(world: &World) -> [Gate; 2] {
    let gates = [Gate::new(), Gate::new()];
    let [first, last] = gates.clone();
    world.model.respond_with(move |request| match request.tool_results_since_user().len() {
        0 => Reply::text("I begin").gate(&first).then_text(".").tool_call(
            "shell",
            scripts::shell("setsid sleep 600 & touch begun; until test -e go; do sleep 0.02; done"),
        ),
        _ => Reply::text("It is").gate(&last).then_text(" done."),
    });
    gates
}

/// The moments: an event's name, and how often it has come.
const MOMENTS: [(&str, usize); 5] =
    [("run_status", 1), ("run_status", 2), ("token", 1), ("tool_call", 1), ("tool_result", 1)];

/// Begins a run and leads it to a moment.
async fn lead_to(
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
        wait_until(|| workspace.join("begun").exists()).await;
    }
    if name == "tool_result" {
        std::fs::write(workspace.join("go"), "").unwrap();
    }
    let mut seen = 0;
    let is_there = |event: &Event| {
        seen += usize::from(event.name == name);
        seen == times
    };
    reader.until(client, is_there).await;
    (reader, deployment_id)
}

/// Nothing of the deployment answers, runs or lies about.
async fn is_gone(world: &World, client: &Client, deployment_id: &str) {
    let (workspace, sandbox) = (world.workspace(deployment_id), world.sandbox_dir(deployment_id));
    wait_until(|| !workspace.exists() && !sandbox.exists()).await;
    let process = world.sandbox_process(deployment_id);
    wait_until(|| processes_that_mention(&process).is_empty()).await;
    for rest in ["", "/events", "/files", "/runs", "/skills", "/tools"] {
        let answer = client.get(&format!("/v1/deployments/{deployment_id}{rest}")).await.unwrap();
        assert_eq!(answer.status, 404, "{rest}");
    }
    let message = json!({"content": "Still there?"});
    let answer = client.post(&format!("/v1/deployments/{deployment_id}/messages"), &message).await.unwrap();
    assert_eq!(answer.status, 404);
}

async fn at_every_moment_of_a_run_nothing_is_left(world: World) {
    let server = world.start().await;
    let client = world.client_of(&server);
    for moment in MOMENTS {
        let gates = slow_run(&world);
        let (mut reader, deployment_id) = lead_to(&world, &client, &gates, moment).await;
        let answer = client.delete(&format!("/v1/deployments/{deployment_id}")).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.json()["status"].as_str()), (200, Some("deleted")));
        reader.drain().await;
        let numbers: Vec<u64> = reader.seen.iter().map(|event| event.number()).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "{moment:?}: without a gap");
        let last = reader.seen.last().unwrap();
        let said = (last.name.as_str(), &last.data["status"]);
        assert_eq!(said, ("deployment_status", &json!("deleted")), "{moment:?}");
        gates.iter().for_each(Gate::open);
        is_gone(&world, &client, &deployment_id).await;
    }
}

async fn a_server_that_is_killed_while_it_deletes_ends_what_it_began(world: World) {
    for point in ["commit.before:delete_deployment", "commit.after:delete_deployment", "work.taken:teardown"]
    {
        for moment in [MOMENTS[2], MOMENTS[3]] {
            let gates = slow_run(&world);
            let server = start(&world.serve.clone().env("HERM_FAULT_POINT", point)).await;
            let client = world.client_of(&server);
            let (mut reader, deployment_id) = lead_to(&world, &client, &gates, moment).await;
            let path = format!("/v1/deployments/{deployment_id}");
            // The answer may be lost with the server.
            let answered = client.delete(&path).await;
            server.wait().await.unwrap();
            reader.drain().await;
            gates.iter().for_each(Gate::open);
            let server = world.start().await;
            let client = world.client_of(&server);
            if point.starts_with("commit.before") {
                assert!(answered.is_err(), "what is not durable is not acknowledged");
            }
            let again = client.delete(&path).await.unwrap();
            assert!([200, 404].contains(&again.status.as_u16()), "{point}: {}", again.text());
            is_gone(&world, &client, &deployment_id).await;
            stop(server).await;
        }
    }
}

async fn stop(server: Server) {
    server.terminate().unwrap();
    assert!(server.wait().await.unwrap().status.success());
}
