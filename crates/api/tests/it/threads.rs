//! `…/threads`.

use http::Method;
use serde_json::{Value, json};

use crate::world::World;

fn path_of(made: &Value, thread: &Value) -> String {
    World::path(made, &format!("/threads/{}", thread["thread_id"].as_str().unwrap()))
}

#[tokio::test]
async fn a_thread_is_made_named_and_renamed() {
    let world = World::new().await;
    let made = world.deployment().await;
    let answer = world.post(&World::path(&made, "/threads"), &json!({"title": "Plans"})).await;
    assert_eq!(answer.status, 201);
    let thread = answer.json();
    let expected = json!({
        "thread_id": thread["thread_id"],
        "deployment_id": made["deployment_id"],
        "title": "Plans",
        "status": "idle",
        "message_count": 0,
        "last_activity_at": "2027-01-15T08:00:00.000000Z",
        "created_at": "2027-01-15T08:00:00.000000Z",
    });
    assert_eq!(thread, expected);
    let path = path_of(&made, &thread);
    let patch = async |body: Value| world.call(&world.writer, Method::PATCH, &path, Some(&body)).await;
    assert_eq!(patch(json!({"title": "Old plans"})).await.json()["title"], "Old plans");
    assert_eq!(patch(json!({})).await.json()["title"], "Old plans");
    assert_eq!(patch(json!({"title": null})).await.json()["title"], json!(null));
    assert_eq!(patch(json!({"title": "", "colour": "red"})).await.faults(), ["title", "colour"]);
    assert_eq!(world.get(&path).await.json()["title"], json!(null));
    // The title is optional, and so is the body.
    let bare = world.call(&world.writer, Method::POST, &World::path(&made, "/threads"), None).await;
    assert_eq!((bare.status.as_u16(), &bare.json()["title"]), (201, &json!(null)));
}

#[tokio::test]
async fn threads_are_listed_newest_first_page_by_page() {
    let world = World::new().await;
    let made = world.deployment().await;
    let mut ids = vec![made["thread_id"].clone()];
    for number in 0..4 {
        let thread =
            world.post(&World::path(&made, "/threads"), &json!({"title": format!("{number}")})).await;
        ids.push(thread.json()["thread_id"].clone());
    }
    ids.reverse();
    let message = json!({"content": "hi", "thread_id": ids[1]});
    assert_eq!(world.post(&World::path(&made, "/messages"), &message).await.status, 202);
    let (mut listed, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.get(&World::path(&made, &format!("/threads?limit=2{cursor}"))).await.json();
        listed.extend(page["data"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
        // What is made meanwhile is newer than all that is still to come.
        world.post(&World::path(&made, "/threads"), &json!({})).await;
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
async fn a_deleted_thread_is_gone_and_the_default_one_stays() {
    let world = World::new().await;
    let made = world.deployment().await;
    let thread = world.post(&World::path(&made, "/threads"), &json!({})).await.json();
    let path = path_of(&made, &thread);
    let message = json!({"content": "hi", "thread_id": thread["thread_id"]});
    let run = world.post(&World::path(&made, "/messages"), &message).await.json();
    let answer = world.call(&world.writer, Method::DELETE, &path, None).await;
    let expected = json!({"thread_id": thread["thread_id"], "status": "deleted"});
    assert_eq!((answer.status.as_u16(), answer.json()), (200, expected));
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(world.call(&world.writer, method, &path, None).await.status, 404);
    }
    assert_eq!(world.post(&World::path(&made, "/messages"), &message).await.status, 404);
    let run = World::path(&made, &format!("/runs/{}", run["run_id"].as_str().unwrap()));
    assert_eq!(world.get(&run).await.json()["status"], "cancelled");
    let default = world.call(&world.writer, Method::DELETE, &path_of(&made, &made), None).await;
    assert_eq!(default.refusal(), (409, "conflict".to_owned()));
}
