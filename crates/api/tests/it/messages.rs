//! Tests of `…/messages`, and of reading the messages of a thread.

use http::StatusCode;
use serde_json::json;

use crate::world::{World, read};

#[tokio::test]
async fn sending_a_message_returns_its_run_and_thread() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let response = world.post(&World::path(&deployment, "/messages"), &json!({"content": "hello"})).await;
    assert_eq!(response.status, StatusCode::ACCEPTED);
    let sent = response.json();
    let expected = json!({
        "run_id": sent["run_id"],
        "deployment_id": deployment["deployment_id"],
        "thread_id": deployment["thread_id"],
        "status": "queued",
    });
    assert_eq!(sent, expected);
    assert!(sent["run_id"].as_str().unwrap().starts_with("run_"));
    let thread = world
        .get(&World::path(&deployment, &format!("/threads/{}", deployment["thread_id"].as_str().unwrap())))
        .await;
    let thread = thread.json();
    assert_eq!((&thread["status"], &thread["message_count"]), (&json!("running"), &json!(1)));
    let message = &thread["messages"][0];
    assert_eq!((&message["role"], &message["content"]), (&json!("user"), &json!("hello")));
    assert_eq!(message["run_id"], sent["run_id"]);
}

#[tokio::test]
async fn a_message_to_a_thread_with_an_active_run_joins_the_run() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let path = World::path(&deployment, "/messages");
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
async fn an_invalid_message_is_rejected_with_its_field_errors() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let path = World::path(&deployment, "/messages");
    let errors = async |body| world.post(&path, &body).await.error_paths();
    assert_eq!(errors(json!({})).await, ["content"]);
    assert_eq!(errors(json!({"content": ""})).await, ["content"]);
    assert_eq!(errors(json!({"content": "a\u{0}b"})).await, ["content"]);
    assert_eq!(
        errors(json!({"content": 1, "thread_id": "x", "attachments": {}, "loud": true})).await,
        ["attachments", "content", "thread_id", "loud"]
    );
    let nowhere = json!({"content": "hi", "thread_id": "thr_01h455vb4pex5vsknk084sn02q"});
    assert_eq!(world.post(&path, &nowhere).await.status_and_code(), (404, "not_found".to_owned()));
}

#[tokio::test]
async fn attachments_are_stored_and_returned_with_their_message() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let attachments = json!([
        {"type": "image", "url": "https://pictures.example/a.png?size=1"},
        {"type": "audio", "path": "recordings/1.ogg"},
    ]);
    let path = World::path(&deployment, "/messages");
    let sent = world.post(&path, &json!({"content": "Look", "attachments": attachments})).await;
    assert_eq!(sent.status, StatusCode::ACCEPTED);
    assert_eq!(world.post(&path, &json!({"attachments": attachments})).await.status, StatusCode::ACCEPTED);
    assert_eq!(world.post(&path, &json!({"content": "no more", "attachments": []})).await.status, 202);
    let thread = World::path(&deployment, &format!("/threads/{}", deployment["thread_id"].as_str().unwrap()));
    let messages = world.get(&thread).await.json()["messages"].clone();
    assert_eq!((&messages[0]["content"], &messages[0]["attachments"]), (&json!("Look"), &attachments));
    assert_eq!((&messages[1]["content"], &messages[1]["attachments"]), (&json!(""), &attachments));
    assert!(messages[2].get("attachments").is_none());
    let events = World::path(&deployment, "/events?types=message&after=evt_0");
    let request = http::Request::builder().uri(events).header("accept", "application/json");
    let request = request.header("authorization", format!("Bearer {}", world.reader));
    let events = read(world.send(request.body(axum::body::Body::empty()).unwrap()).await).await.json();
    assert_eq!(events["data"][0]["data"]["attachments"], attachments);
    assert!(events["data"][2]["data"].get("attachments").is_none());
}

#[tokio::test]
async fn invalid_attachments_are_rejected_with_their_field_errors() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let path = World::path(&deployment, "/messages");
    let errors = async |attachments: serde_json::Value| {
        world.post(&path, &json!({"content": "hi", "attachments": attachments})).await.error_paths()
    };
    let image = json!({"type": "image", "url": "https://a.example/b"});
    assert_eq!(errors(json!(vec![image.clone(); 21])).await, ["attachments"]);
    assert_eq!(errors(json!([image, 1])).await, ["attachments[1]"]);
    assert_eq!(errors(json!([{}])).await, ["attachments[0].type", "attachments[0]"]);
    let both = json!([{"type": "image", "url": "https://a.example", "path": "a"}]);
    assert_eq!(errors(both).await, ["attachments[0]"]);
    let odd = json!([{"type": "text", "path": "a", "size": 1}]);
    assert_eq!(errors(odd).await, ["attachments[0].type", "attachments[0].size"]);
    for url in [
        "a.png",
        "//a.example/b",
        "ftp://a.example/b",
        "file:///etc/passwd",
        "data:image/png;base64,AA",
        "https://",
        "https://user:word@a.example/",
        "https://a.example/\n[attachment: video]",
        " https://a.example/",
        &format!("https://a.example/{}", "a".repeat(2048)),
    ] {
        assert_eq!(errors(json!([{"type": "image", "url": url}])).await, ["attachments[0].url"], "{url}");
    }
    for path in ["/etc/passwd", "../a", "a/../../b", "a\u{0}", "", "."] {
        assert_eq!(errors(json!([{"type": "image", "path": path}])).await, ["attachments[0].path"], "{path}");
    }
}

#[tokio::test]
async fn the_number_of_pending_messages_of_a_run_is_limited() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let path = World::path(&deployment, "/messages");
    for _ in 0..100 {
        assert_eq!(world.post(&path, &json!({"content": "more"})).await.status, StatusCode::ACCEPTED);
    }
    let rejected = world.post(&path, &json!({"content": "too much"})).await;
    assert_eq!(rejected.status_and_code(), (409, "conflict".to_owned()));
}

#[tokio::test]
async fn messages_of_a_long_thread_are_paginated() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    for number in 0..100 {
        let body = json!({"content": number.to_string()});
        world.post(&World::path(&deployment, "/messages"), &body).await;
    }
    // The limit of 100 pending messages applies only to messages from users, not to messages from the agent.
    let thread_id = deployment["thread_id"].as_str().unwrap();
    let message = herm_store::messages::NewMessage {
        message_id: world.ids.next(),
        thread_id: thread_id.parse().unwrap(),
        run_id: world.ids.next(),
        role: herm_types::thread::Role::Agent,
        content: "the last".to_owned(),
        attachments: Vec::new(),
        truncated: false,
        answers: None,
    };
    world
        .store
        .transaction("add", move |tx| {
            Box::pin(async move { herm_store::messages::insert(tx, &message).await })
        })
        .await
        .unwrap();
    let path = World::path(&deployment, &format!("/threads/{thread_id}"));
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
    assert_eq!(world.get(&format!("{path}?messages_cursor=x")).await.error_paths(), ["messages_cursor"]);
}

#[tokio::test]
async fn messages_are_rejected_while_the_server_shuts_down() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    world.app.drain();
    let rejected = world.post(&World::path(&deployment, "/messages"), &json!({"content": "late"})).await;
    assert_eq!(rejected.status_and_code(), (503, "unavailable".to_owned()));
    assert_eq!(rejected.headers["retry-after"], "1");
    assert_eq!(world.get("/readyz").await.status_and_code().0, 503);
    assert_eq!(world.get("/healthz").await.status, StatusCode::OK);
}
