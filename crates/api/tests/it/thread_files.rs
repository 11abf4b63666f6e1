//! Files of deployments without a persistent file system: each thread has its own.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::snapshots;
use crate::world::{Answer, World, minimal, read};

async fn create(world: &World) -> Value {
    let mut body = minimal();
    body["sandbox"] = json!({"persistent_filesystem": false});
    let answer = world.post("/v1/deployments", &body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.json());
    answer.json()
}

async fn put(world: &World, made: &Value, query: &str) -> Answer {
    let request = Request::builder()
        .method(Method::PUT)
        .uri(World::path(made, &format!("/files?path=a/b&{query}")))
        .header("authorization", format!("Bearer {}", world.writer));
    read(world.send(request.body(Body::from("text")).unwrap()).await).await
}

async fn names(world: &World, made: &Value, query: &str) -> Vec<String> {
    let listed = world.get(&World::path(made, &format!("/files?{query}"))).await;
    assert_eq!(listed.status, StatusCode::OK, "{}", listed.json());
    let entries = listed.json()["entries"].as_array().unwrap().clone();
    entries.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn each_thread_has_a_workspace_of_its_own_and_the_default_one_is_meant_otherwise() {
    let world = World::new().await;
    let made = create(&world).await;
    assert_eq!(made["filesystem"]["persistent"], false);
    let first = made["thread_id"].as_str().unwrap();
    let second = world.post(&World::path(&made, "/threads"), &json!({})).await.json();
    let second = second["thread_id"].as_str().unwrap();
    assert_eq!(put(&world, &made, "").await.status, StatusCode::OK);
    assert_eq!(names(&world, &made, &format!("thread_id={first}")).await, ["a"]);
    assert_eq!(names(&world, &made, &format!("thread_id={second}")).await, [""; 0]);
    let content = |of: &str| World::path(&made, &format!("/files/content?path=a/b&thread_id={of}"));
    assert_eq!(world.get(&content(first)).await.bytes, b"text");
    assert_eq!(world.get(&content(second)).await.refusal().0, 404);
    let of_second = format!("thread_id={second}");
    assert_eq!(put(&world, &made, &of_second).await.status, StatusCode::OK);
    let path = World::path(&made, &format!("/files?path=a&{of_second}"));
    assert_eq!(world.call(&world.writer, Method::DELETE, &path, None).await.status, StatusCode::OK);
    assert_eq!(names(&world, &made, &of_second).await, [""; 0]);
    assert_eq!(names(&world, &made, "").await, ["a"], "the other one's are as they were");
}

#[tokio::test]
async fn a_thread_that_is_not_there_or_has_nothing_of_its_own_is_refused() {
    let world = World::new().await;
    let (made, persistent) = (create(&world).await, world.deployment().await);
    let foreign = persistent["thread_id"].as_str().unwrap();
    let refused = put(&world, &made, &format!("thread_id={foreign}")).await;
    assert_eq!(refused.refusal(), (404, "not_found".to_owned()));
    let refused = put(&world, &made, "thread_id=mine").await;
    assert_eq!((refused.refusal().0, refused.faults()), (400, vec!["thread_id".to_owned()]));
    let refused = put(&world, &persistent, &format!("thread_id={foreign}")).await;
    assert_eq!((refused.refusal().0, refused.faults()), (400, vec!["thread_id".to_owned()]));
    let files = std::fs::read_dir(&world.workspaces_dir).map_or(0, Iterator::count);
    assert_eq!(files, 0, "nothing was made for what was refused");
}

#[tokio::test]
async fn who_writes_to_a_threads_files_keeps_them() {
    let world = World::new().await;
    let made = create(&world).await;
    let path = World::path(&made, &format!("/threads/{}", made["thread_id"].as_str().unwrap()));
    let before = world.get(&path).await.json()["last_activity_at"].clone();
    world.clock.advance_ms(60_000);
    put(&world, &made, "").await;
    assert_ne!(world.get(&path).await.json()["last_activity_at"], before);
}

#[tokio::test]
async fn there_is_nothing_to_retain_and_nowhere_to_restore_to() {
    let world = World::new().await;
    let made = create(&world).await;
    let path = World::path(&made, "?retain_filesystem=true");
    let refused = world.call(&world.writer, Method::DELETE, &path, None).await;
    assert_eq!((refused.refusal().0, refused.faults()), (400, vec!["retain_filesystem".to_owned()]));
    assert_eq!(world.get(&World::path(&made, "")).await.status, StatusCode::OK);
    let mut body = minimal();
    body["sandbox"] = json!({"persistent_filesystem": false});
    body["restore_snapshot"] = snapshots::ready(&world, "acme", &[]).await.to_string().into();
    let refused = world.post("/v1/deployments", &body).await;
    assert_eq!((refused.refusal().0, refused.faults()), (400, vec!["restore_snapshot".to_owned()]));
}
