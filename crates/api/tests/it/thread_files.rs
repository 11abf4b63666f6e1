//! Tests of the files of deployments without a persistent file system, in which each thread has its own workspace.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::snapshots;
use crate::world::{ApiResponse, World, minimal, read};

async fn create(world: &World) -> Value {
    let mut body = minimal();
    body["sandbox"] = json!({"persistent_filesystem": false});
    let response = world.post("/v1/deployments", &body).await;
    assert_eq!(response.status, StatusCode::CREATED, "{}", response.json());
    response.json()
}

async fn put(world: &World, deployment: &Value, query: &str) -> ApiResponse {
    let request = Request::builder()
        .method(Method::PUT)
        .uri(World::path(deployment, &format!("/files?path=a/b&{query}")))
        .header("authorization", format!("Bearer {}", world.writer));
    read(world.send(request.body(Body::from("text")).unwrap()).await).await
}

async fn names(world: &World, deployment: &Value, query: &str) -> Vec<String> {
    let listed = world.get(&World::path(deployment, &format!("/files?{query}"))).await;
    assert_eq!(listed.status, StatusCode::OK, "{}", listed.json());
    let entries = listed.json()["entries"].as_array().unwrap().clone();
    entries.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn each_thread_has_its_own_workspace_and_the_default_threads_is_the_default() {
    let world = World::new().await;
    let deployment = create(&world).await;
    assert_eq!(deployment["filesystem"]["persistent"], false);
    let first = deployment["thread_id"].as_str().unwrap();
    let second = world.post(&World::path(&deployment, "/threads"), &json!({})).await.json();
    let second = second["thread_id"].as_str().unwrap();
    assert_eq!(put(&world, &deployment, "").await.status, StatusCode::OK);
    assert_eq!(names(&world, &deployment, &format!("thread_id={first}")).await, ["a"]);
    assert_eq!(names(&world, &deployment, &format!("thread_id={second}")).await, [""; 0]);
    let content = |of: &str| World::path(&deployment, &format!("/files/content?path=a/b&thread_id={of}"));
    assert_eq!(world.get(&content(first)).await.bytes, b"text");
    assert_eq!(world.get(&content(second)).await.status_and_code().0, 404);
    let of_second = format!("thread_id={second}");
    assert_eq!(put(&world, &deployment, &of_second).await.status, StatusCode::OK);
    let path = World::path(&deployment, &format!("/files?path=a&{of_second}"));
    assert_eq!(world.call(&world.writer, Method::DELETE, &path, None).await.status, StatusCode::OK);
    assert_eq!(names(&world, &deployment, &of_second).await, [""; 0]);
    assert_eq!(names(&world, &deployment, "").await, ["a"], "the other thread's files are unchanged");
}

#[tokio::test]
async fn an_unknown_thread_and_a_thread_of_a_persistent_workspace_are_rejected() {
    let world = World::new().await;
    let (deployment, persistent) = (create(&world).await, world.deployment().await);
    let foreign = persistent["thread_id"].as_str().unwrap();
    let rejected = put(&world, &deployment, &format!("thread_id={foreign}")).await;
    assert_eq!(rejected.status_and_code(), (404, "not_found".to_owned()));
    let rejected = put(&world, &deployment, "thread_id=mine").await;
    assert_eq!((rejected.status_and_code().0, rejected.error_paths()), (400, vec!["thread_id".to_owned()]));
    let rejected = put(&world, &persistent, &format!("thread_id={foreign}")).await;
    assert_eq!((rejected.status_and_code().0, rejected.error_paths()), (400, vec!["thread_id".to_owned()]));
    let files = std::fs::read_dir(&world.workspaces_dir).map_or(0, Iterator::count);
    assert_eq!(files, 0, "a rejected request created a workspace");
}

#[tokio::test]
async fn writing_a_file_updates_the_threads_last_activity() {
    let world = World::new().await;
    let deployment = create(&world).await;
    let path = World::path(&deployment, &format!("/threads/{}", deployment["thread_id"].as_str().unwrap()));
    let before = world.get(&path).await.json()["last_activity_at"].clone();
    world.clock.advance_ms(60_000);
    put(&world, &deployment, "").await;
    assert_ne!(world.get(&path).await.json()["last_activity_at"], before);
}

#[tokio::test]
async fn files_can_be_neither_retained_nor_restored() {
    let world = World::new().await;
    let deployment = create(&world).await;
    let path = World::path(&deployment, "?retain_filesystem=true");
    let rejected = world.call(&world.writer, Method::DELETE, &path, None).await;
    assert_eq!(
        (rejected.status_and_code().0, rejected.error_paths()),
        (400, vec!["retain_filesystem".to_owned()])
    );
    assert_eq!(world.get(&World::path(&deployment, "")).await.status, StatusCode::OK);
    let mut body = minimal();
    body["sandbox"] = json!({"persistent_filesystem": false});
    body["restore_snapshot"] = snapshots::ready(&world, "acme", &[]).await.to_string().into();
    let rejected = world.post("/v1/deployments", &body).await;
    assert_eq!(
        (rejected.status_and_code().0, rejected.error_paths()),
        (400, vec!["restore_snapshot".to_owned()])
    );
}
