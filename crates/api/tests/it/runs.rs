//! Tests of `…/runs`: listing, reading and cancelling runs.

use herm_store::connections::{self, NewConnection};
use herm_store::journal::{self, Position};
use herm_types::run::StepKind;
use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn runs_are_listed_newest_first_and_filtered() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let mut runs = Vec::new();
    for _ in 0..3 {
        let body = json!({"content": "hi", "thread_id": "new"});
        runs.push(world.post(&World::path(&deployment, "/messages"), &body).await.json());
    }
    let listed = world.get(&World::path(&deployment, "/runs?limit=2")).await.json();
    assert_eq!(listed["data"][0]["run_id"], runs[2]["run_id"]);
    assert_eq!(listed["data"][1]["run_id"], runs[1]["run_id"]);
    let cursor = listed["next_cursor"].as_str().unwrap();
    let rest = world.get(&World::path(&deployment, &format!("/runs?cursor={cursor}"))).await.json();
    assert_eq!((&rest["data"][0]["run_id"], &rest["next_cursor"]), (&runs[0]["run_id"], &json!(null)));
    let of_thread = format!("/runs?thread_id={}", runs[1]["thread_id"].as_str().unwrap());
    let of_thread = world.get(&World::path(&deployment, &of_thread)).await.json();
    assert_eq!(of_thread["data"].as_array().unwrap().len(), 1);
    assert_eq!(
        world.get(&World::path(&deployment, "/runs?status=completed")).await.json()["data"],
        json!([])
    );
    assert_eq!(
        world.get(&World::path(&deployment, "/runs?status=queued")).await.json()["data"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert_eq!(
        world.get(&World::path(&deployment, "/runs?status=odd&thread_id=x")).await.error_paths(),
        ["thread_id", "status"]
    );
}

#[tokio::test]
async fn a_run_is_returned_with_its_status_and_usage() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let sent = world.post(&World::path(&deployment, "/messages"), &json!({"content": "hi"})).await.json();
    let run = world
        .get(&World::path(&deployment, &format!("/runs/{}", sent["run_id"].as_str().unwrap())))
        .await
        .json();
    let expected = json!({
        "run_id": sent["run_id"],
        "deployment_id": deployment["deployment_id"],
        "thread_id": deployment["thread_id"],
        "trigger": "message",
        "status": "queued",
        "usage": {
            "model_calls": 0,
            "tool_calls": 0,
            "tokens": {"input_tokens": 0, "output_tokens": 0, "cache_read_tokens": 0, "cache_write_tokens": 0},
            "models": [],
        },
        "created_at": "2027-01-15T08:00:00.000000Z",
        "started_at": null,
        "ended_at": null,
    });
    assert_eq!(run, expected);
    let nobody = World::path(&deployment, "/runs/run_01h455vb4pex5vsknk084sn02q");
    assert_eq!(world.get(&nobody).await.status_and_code(), (404, "not_found".to_owned()));
    assert_eq!(
        world.get(&World::path(&deployment, "/runs/x")).await.status_and_code(),
        (404, "not_found".to_owned())
    );
}

#[tokio::test]
async fn cancelling_a_run_again_keeps_the_first_request_time() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let sent = world.post(&World::path(&deployment, "/messages"), &json!({"content": "hi"})).await.json();
    let path = World::path(&deployment, &format!("/runs/{}/cancel", sent["run_id"].as_str().unwrap()));
    let first = world.post(&path, &json!({})).await;
    assert_eq!((first.status.as_u16(), &first.json()["status"]), (202, &json!("queued")));
    let requested_at = first.json()["cancel_requested_at"].clone();
    assert!(requested_at.is_string());
    world.clock.advance_ms(1000);
    assert_eq!(world.post(&path, &json!({})).await.json()["cancel_requested_at"], requested_at);
    assert_eq!(world.post(&path, &json!({"why": "because"})).await.error_paths(), ["why"]);
}

#[tokio::test]
async fn a_tool_call_lists_the_connections_of_its_programs() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let sent = world.post(&World::path(&deployment, "/messages"), &json!({"content": "hi"})).await.json();
    let run_id = sent["run_id"].as_str().unwrap().parse().unwrap();
    let deployment_id = deployment["deployment_id"].as_str().unwrap().parse().unwrap();
    let attempts = [("api.acme.example", Ok(())), ("10.0.0.1", Err("the address is private".to_owned()))];
    world
        .store
        .transaction("work", move |tx| {
            Box::pin(async move {
                for (call_no, kind) in [(0, StepKind::Model), (1, StepKind::Tool), (2, StepKind::Tool)] {
                    let position = Position { run_id, step_no: 1, call_no };
                    journal::record_intent(tx, position, kind, "shell", "{}").await?;
                }
                let call = Position { run_id, step_no: 1, call_no: 1 };
                for (connection_id, (host, verdict)) in (1..).zip(attempts) {
                    let new = NewConnection { connection_id, host: host.to_owned(), port: 443, verdict };
                    connections::record(tx, deployment_id, Some(call), &new).await?;
                }
                let ended = connections::EndedConnection {
                    connection_id: 1,
                    sent_bytes: 7,
                    received_bytes: 9,
                    error: None,
                };
                connections::end(tx, &[ended]).await
            })
        })
        .await
        .unwrap();
    let path = World::path(&deployment, &format!("/runs/{run_id}/steps"));
    let steps = world.get(&path).await.json();
    let time = "2027-01-15T08:00:00.000000Z";
    let connections = json!([
        {"host": "api.acme.example", "port": 443, "verdict": "allowed", "sent_bytes": 7, "received_bytes": 9,
            "opened_at": time, "ended_at": time},
        {"host": "10.0.0.1", "port": 443, "verdict": "denied", "reason": "the address is private", "sent_bytes": 0,
            "received_bytes": 0, "opened_at": time, "ended_at": time},
    ]);
    assert_eq!(steps["data"][0]["connections"], json!(null), "a model call has none");
    assert_eq!(steps["data"][1]["connections"], connections);
    assert_eq!(steps["data"][1]["connections_total"], 2);
    assert_eq!(
        (&steps["data"][2]["connections"], &steps["data"][2]["connections_total"]),
        (&json!([]), &json!(0))
    );
    let first = world.get(&format!("{path}?limit=1")).await.json();
    let next = world.get(&format!("{path}?cursor={}", first["next_cursor"].as_str().unwrap())).await.json();
    assert_eq!(next["data"][0]["connections"], connections, "connections are listed on every page");
}
