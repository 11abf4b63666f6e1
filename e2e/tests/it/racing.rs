//! Tests of races: a run is cancelled while it ends, and the server is stopped while clients read event streams.

use std::collections::HashSet;

use herm_testkit::model_server::{Gate, Reply};
use serde_json::{Value, json};

use crate::log;
use crate::reader::{Reader, is_end};
use crate::world::{World, create, on_both_databases, send, text, try_send};

on_both_databases!(
    a_cancellation_that_races_with_the_end_of_a_run_leaves_the_thread_usable,
    streams_that_end_with_the_server_resume_without_loss
);

async fn a_cancellation_that_races_with_the_end_of_a_run_leaves_the_thread_usable(world: World) {
    world.model.respond_with(|request| {
        if request.tool_results_since_user().is_empty() {
            Reply::text("I write. ").tool_call("write_file", json!({"path": "a.txt", "content": "a"}))
        } else {
            Reply::text("One, ").then_text("two.")
        }
    });
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "anthropic/claude-sonnet-4.5").await;
    let mut reader = Reader::from_the_start(&deployment_id);
    for events in 0..16 {
        let run_id = send(&client, &deployment_id, "Write.").await;
        // Each round waits for one more event of its run than the round before, and then cancels the run. Together, the
        // rounds cover every moment from the first event until after the end of a run.
        let mut seen = 0;
        let mut status = None;
        reader
            .until(&client, |event| {
                seen += 1;
                if is_end(event, &run_id) {
                    status = event.data["status"].as_str().map(str::to_owned);
                }
                seen > events || status.is_some()
            })
            .await;
        let path = format!("/v1/deployments/{deployment_id}/runs/{run_id}/cancel");
        let response = client.post(&path, &json!({})).await.unwrap();
        let status = match status {
            Some(status) => status,
            None => reader.until_ended(&client, &run_id).await,
        };
        assert!(["completed", "cancelled"].contains(&status.as_str()), "{status}");
        assert_eq!(response.status, if status == "completed" { 409 } else { 202 }, "{}", response.text());
    }
    let last = send(&client, &deployment_id, "Still there?").await;
    assert_eq!(reader.until_ended(&client, &last).await, "completed");
    log::check(&reader.seen);
    log::check_stored(&client, &deployment_id, &reader.seen).await;
}

/// Many streams are open while messages are published. When the server stops, it sends a reconnection time on each
/// stream and then ends the stream. After the streams are resumed, no event may be missing.
async fn streams_that_end_with_the_server_resume_without_loss(world: World) {
    const STREAMS: usize = 30;
    const RUNS: usize = 4;
    let gate = Gate::new();
    let gated = gate.clone();
    world
        .model
        .respond_with(move |_| Reply::text("One, ").gate(&gated).text_in(["two, ", "three, ", "four."]));
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "openai/gpt-5").await;
    let mut runs = HashSet::new();
    for _ in 0..RUNS {
        let body = json!({"content": "Count.", "thread_id": "new"});
        let sent: Value = try_send(&client, &deployment_id, body).await.json();
        runs.insert(text(&sent, "run_id"));
    }
    gate.reached_times(RUNS).await;
    let mut readers: Vec<Reader> = (0..STREAMS).map(|_| Reader::from_the_start(&deployment_id)).collect();
    for reader in &mut readers {
        reader.until(&client, |event| event.name == "token").await;
    }
    server.terminate().unwrap();
    for reader in &mut readers {
        reader.drain().await;
        assert!(reader.retry_ms().is_some());
    }
    gate.open();
    assert!(server.wait().await.unwrap().status.success());
    let server = world.start().await;
    let client = world.client_of(&server);
    for reader in &mut readers {
        let mut open = runs.clone();
        for event in &reader.seen {
            open.retain(|run_id| !is_end(event, run_id));
        }
        reader
            .until(&client, |event| {
                open.retain(|run_id| !is_end(event, run_id));
                open.is_empty()
            })
            .await;
        log::check(&reader.seen);
    }
    assert!(readers.iter().all(|reader| reader.seen == readers[0].seen));
}
