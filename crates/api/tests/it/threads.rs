//! Tests of `…/threads`: creating, reading, listing, renaming and deleting threads.

use http::Method;
use serde_json::{Value, json};

use crate::world::World;

fn path_of(deployment: &Value, thread: &Value) -> String {
    World::path(deployment, &format!("/threads/{}", thread["thread_id"].as_str().unwrap()))
}

#[tokio::test]
async fn a_thread_can_be_created_and_renamed() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let response = world.post(&World::path(&deployment, "/threads"), &json!({"title": "Plans"})).await;
    assert_eq!(response.status, 201);
    let thread = response.json();
    let expected = json!({
        "thread_id": thread["thread_id"],
        "deployment_id": deployment["deployment_id"],
        "title": "Plans",
        "status": "idle",
        "message_count": 0,
        "last_activity_at": "2027-01-15T08:00:00.000000Z",
        "created_at": "2027-01-15T08:00:00.000000Z",
    });
    assert_eq!(thread, expected);
    let path = path_of(&deployment, &thread);
    let patch = async |body: Value| world.call(&world.writer, Method::PATCH, &path, Some(&body)).await;
    assert_eq!(patch(json!({"title": "Old plans"})).await.json()["title"], "Old plans");
    assert_eq!(patch(json!({})).await.json()["title"], "Old plans");
    assert_eq!(patch(json!({"title": null})).await.json()["title"], json!(null));
    assert_eq!(patch(json!({"title": "", "colour": "red"})).await.error_paths(), ["title", "colour"]);
    assert_eq!(world.get(&path).await.json()["title"], json!(null));
    // Both the title and the whole request body are optional.
    let bare = world.call(&world.writer, Method::POST, &World::path(&deployment, "/threads"), None).await;
    assert_eq!((bare.status.as_u16(), &bare.json()["title"]), (201, &json!(null)));
}

#[tokio::test]
async fn threads_are_listed_newest_first_in_pages() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let mut ids = vec![deployment["thread_id"].clone()];
    for number in 0..4 {
        let thread =
            world.post(&World::path(&deployment, "/threads"), &json!({"title": format!("{number}")})).await;
        ids.push(thread.json()["thread_id"].clone());
    }
    ids.reverse();
    let message = json!({"content": "hi", "thread_id": ids[1]});
    assert_eq!(world.post(&World::path(&deployment, "/messages"), &message).await.status, 202);
    let (mut listed, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.get(&World::path(&deployment, &format!("/threads?limit=2{cursor}"))).await.json();
        listed.extend(page["data"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
        // Threads are listed newest first, so a thread that is created between two pages does not appear on later
        // pages.
        world.post(&World::path(&deployment, "/threads"), &json!({})).await;
    }
    let listed_ids: Vec<&Value> = listed.iter().map(|thread| &thread["thread_id"]).collect();
    assert_eq!(listed_ids, ids.iter().collect::<Vec<_>>());
    let expected = json!({
        "thread_id": ids[1],
        "title": "2",
        "status": "running",
        "message_count": 1,
        "last_activity_at": "2027-01-15T08:00:00.000000Z",
    });
    assert_eq!(listed[1], expected);
}

#[tokio::test]
async fn a_thread_can_be_deleted_except_the_default_one() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let default = world
        .get(&World::path(&deployment, &format!("/threads/{}", deployment["thread_id"].as_str().unwrap())))
        .await
        .json();
    assert_eq!(default["title"], "Default");
    let thread = world.post(&World::path(&deployment, "/threads"), &json!({})).await.json();
    let path = path_of(&deployment, &thread);
    let message = json!({"content": "hi", "thread_id": thread["thread_id"]});
    let run = world.post(&World::path(&deployment, "/messages"), &message).await.json();
    let response = world.call(&world.writer, Method::DELETE, &path, None).await;
    let expected = json!({"thread_id": thread["thread_id"], "status": "deleted"});
    assert_eq!((response.status.as_u16(), response.json()), (200, expected));
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(world.call(&world.writer, method, &path, None).await.status, 404);
    }
    assert_eq!(world.post(&World::path(&deployment, "/messages"), &message).await.status, 404);
    let run = World::path(&deployment, &format!("/runs/{}", run["run_id"].as_str().unwrap()));
    assert_eq!(world.get(&run).await.json()["status"], "cancelled");
    let default = world.call(&world.writer, Method::DELETE, &path_of(&deployment, &deployment), None).await;
    assert_eq!(default.status_and_code(), (409, "conflict".to_owned()));
}
