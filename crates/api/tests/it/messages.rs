//! `…/messages`, and the thread they stand in.

use http::StatusCode;
use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn a_message_is_accepted_with_its_run_and_thread() {
    let world = World::new().await;
    let made = world.deployment().await;
    let answer = world.post(&World::path(&made, "/messages"), &json!({"content": "hello"})).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let sent = answer.json();
    let expected = json!({
        "run_id": sent["run_id"],
        "deployment_id": made["deployment_id"],
        "thread_id": made["thread_id"],
        "status": "queued",
    });
    assert_eq!(sent, expected);
    assert!(sent["run_id"].as_str().unwrap().starts_with("run_"));
    let thread =
        world.get(&World::path(&made, &format!("/threads/{}", made["thread_id"].as_str().unwrap()))).await;
    let thread = thread.json();
    assert_eq!((&thread["status"], &thread["message_count"]), (&json!("running"), &json!(1)));
    let message = &thread["messages"][0];
    assert_eq!((&message["role"], &message["content"]), (&json!("user"), &json!("hello")));
    assert_eq!(message["run_id"], sent["run_id"]);
}

#[tokio::test]
async fn a_message_to_an_active_run_joins_it() {
    let world = World::new().await;
    let made = world.deployment().await;
    let path = World::path(&made, "/messages");
    let first = world.post(&path, &json!({"content": "one"})).await.json();
    let second = world.post(&path, &json!({"content": "two"})).await.json();
    assert_eq!(first["run_id"], second["run_id"]);
    let other = world.post(&path, &json!({"content": "three", "thread_id": "new"})).await.json();
    assert_ne!(other["run_id"], first["run_id"]);
    assert_ne!(other["thread_id"], first["thread_id"]);
    let there = world.post(&path, &json!({"content": "four", "thread_id": other["thread_id"]})).await.json();
    assert_eq!(there["run_id"], other["run_id"]);
}

#[tokio::test]
async fn faults_of_a_message_are_named() {
    let world = World::new().await;
    let made = world.deployment().await;
    let path = World::path(&made, "/messages");
    let faults = async |body| world.post(&path, &body).await.faults();
    assert_eq!(faults(json!({})).await, ["content"]);
    assert_eq!(faults(json!({"content": ""})).await, ["content"]);
    assert_eq!(faults(json!({"content": "a\u{0}b"})).await, ["content"]);
    assert_eq!(
        faults(json!({"content": 1, "thread_id": "x", "attachments": [{}], "loud": true})).await,
        ["content", "thread_id", "attachments", "loud"]
    );
    let nowhere = json!({"content": "hi", "thread_id": "thr_01h455vb4pex5vsknk084sn02q"});
    assert_eq!(world.post(&path, &nowhere).await.refusal(), (404, "not_found".to_owned()));
}

#[tokio::test]
async fn only_so_many_messages_wait_for_one_run() {
    let world = World::new().await;
    let made = world.deployment().await;
    let path = World::path(&made, "/messages");
    for _ in 0..100 {
        assert_eq!(world.post(&path, &json!({"content": "more"})).await.status, StatusCode::ACCEPTED);
    }
    let refused = world.post(&path, &json!({"content": "too much"})).await;
    assert_eq!(refused.refusal(), (409, "conflict".to_owned()));
}

#[tokio::test]
async fn a_long_thread_is_read_page_by_page() {
    let world = World::new().await;
    let made = world.deployment().await;
    for number in 0..100 {
        let body = json!({"content": number.to_string()});
        world.post(&World::path(&made, "/messages"), &body).await;
    }
    // The hundred-and-first goes in past the limit of pending ones, as an agent's would.
    let thread_id = made["thread_id"].as_str().unwrap();
    let message = herm_store::messages::NewMessage {
        message_id: world.ids.next(),
        thread_id: thread_id.parse().unwrap(),
        run_id: world.ids.next(),
        role: herm_types::thread::Role::Agent,
        content: "the last".to_owned(),
        truncated: false,
    };
    world
        .store
        .transaction("add", move |tx| {
            Box::pin(async move { herm_store::messages::insert(tx, &message).await })
        })
        .await
        .unwrap();
    let path = World::path(&made, &format!("/threads/{thread_id}"));
    let newest = world.get(&path).await.json();
    let messages = newest["messages"].as_array().unwrap();
    assert_eq!(
        (messages.len(), &messages[0]["content"], &messages[99]["content"]),
        (100, &json!("1"), &json!("the last"))
    );
    let cursor = newest["messages_cursor"].as_str().unwrap();
    let oldest = world.get(&format!("{path}?messages_cursor={cursor}")).await.json();
    assert_eq!(oldest["messages"].as_array().unwrap().len(), 1);
    assert_eq!((&oldest["messages"][0]["content"], &oldest["messages_cursor"]), (&json!("0"), &json!(null)));
    assert_eq!(world.get(&format!("{path}?messages_cursor=x")).await.faults(), ["messages_cursor"]);
}

#[tokio::test]
async fn nothing_is_accepted_while_the_server_stops() {
    let world = World::new().await;
    let made = world.deployment().await;
    world.app.drain();
    let refused = world.post(&World::path(&made, "/messages"), &json!({"content": "late"})).await;
    assert_eq!(refused.refusal(), (503, "unavailable".to_owned()));
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(world.get("/readyz").await.refusal().0, 503);
    assert_eq!(world.get("/healthz").await.status, StatusCode::OK);
}
