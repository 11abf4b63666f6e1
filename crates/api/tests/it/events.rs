//! Tests of `…/events`: live, resumed and filtered streams, and JSON lists.

use axum::body::Body;
use futures_util::StreamExt as _;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::world::World;

/// An open event stream, and the text that was received but not yet parsed.
pub(crate) struct Stream {
    body: axum::body::BodyDataStream,
    text: String,
}

impl Stream {
    async fn open(world: &World, path: &str, last_event_id: Option<&str>) -> Self {
        Self::open_with(world, &world.writer, path, last_event_id).await
    }

    pub(crate) async fn open_with(world: &World, key: &str, path: &str, last_event_id: Option<&str>) -> Self {
        let mut request = Request::builder().uri(path).header("accept", "text/event-stream");
        request = request.header("authorization", format!("Bearer {key}"));
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// Returns the type, id and data of the next event, or `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<(String, String, Value)> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let frame: String = self.text.drain(..end + 2).collect();
                let field =
                    |name| frame.lines().find_map(|line: &str| line.strip_prefix(name)).map(str::to_owned);
                if let Some(data) = field("data: ") {
                    let data = serde_json::from_str(&data).unwrap();
                    return Some((field("event: ").unwrap(), field("id: ").unwrap(), data));
                }
                continue;
            }
            let chunk = self.body.next().await?.unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

async fn send(world: &World, deployment: &Value, content: &str) {
    let response = world.post(&World::path(deployment, "/messages"), &json!({"content": content})).await;
    assert_eq!(response.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_stream_without_a_position_starts_with_new_events() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    send(&world, &deployment, "before").await;
    let mut stream = Stream::open(&world, &World::path(&deployment, "/events"), None).await;
    send(&world, &deployment, "after").await;
    let (event, id, data) = stream.next().await.unwrap();
    assert_eq!((event.as_str(), id.as_str(), &data["content"]), ("message", "evt_4", &json!("after")));
}

#[tokio::test]
async fn the_first_frame_has_the_start_position_unless_a_gap_follows() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    send(&world, &deployment, "before").await;
    for (query, beginning) in [
        ("", ": herm\nid: evt_3\nretry: 1000\n\n"),
        ("?after=evt_2", ": herm\nid: evt_2\nretry: 1000\n\n"),
        ("?after=evt_9", ": herm\nretry: 1000\n\n"),
    ] {
        let path = World::path(&deployment, &format!("/events{query}"));
        let mut stream = Stream::open(&world, &path, None).await;
        let chunk = stream.body.next().await.unwrap().unwrap();
        assert_eq!(std::str::from_utf8(&chunk).unwrap(), beginning);
    }
}

#[tokio::test]
async fn a_resumed_stream_has_no_gap_and_no_duplicate() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    for number in 0..600 {
        let body = json!({"content": number.to_string(), "thread_id": "new"});
        world.post(&World::path(&deployment, "/messages"), &body).await;
    }
    let path = World::path(&deployment, "/events?after=evt_0");
    // The `Last-Event-ID` header takes precedence over the `after` query parameter: when a browser reconnects, it reuses
    // the URL with the old `after` value and adds the header.
    let mut stream = Stream::open(&world, &path, Some("evt_5")).await;
    send(&world, &deployment, "live").await;
    for expected in 6..=1203 {
        assert_eq!(stream.next().await.unwrap().1, format!("evt_{expected}"));
    }
}

#[tokio::test]
async fn a_filtered_stream_has_only_matching_events() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let mine = world
        .post(&World::path(&deployment, "/messages"), &json!({"content": "a", "thread_id": "new"}))
        .await
        .json();
    send(&world, &deployment, "b").await;
    let query =
        format!("/events?after=evt_0&types=message,token&thread_id={}", mine["thread_id"].as_str().unwrap());
    let mut stream = Stream::open(&world, &World::path(&deployment, &query), None).await;
    let again = json!({"content": "c", "thread_id": mine["thread_id"]});
    world.post(&World::path(&deployment, "/messages"), &again).await;
    let contents = [
        stream.next().await.unwrap().2["content"].clone(),
        stream.next().await.unwrap().2["content"].clone(),
    ];
    assert_eq!(contents, [json!("a"), json!("c")]);
    let rejected = world.get(&World::path(&deployment, "/events?types=message,odd&run_id=x&after=5")).await;
    assert_eq!(rejected.error_paths(), ["run_id", "types", "after"]);
}

#[tokio::test]
async fn a_position_beyond_the_log_is_a_gap() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let mut stream = Stream::open(&world, &World::path(&deployment, "/events?after=evt_99"), None).await;
    let (event, _, data) = stream.next().await.unwrap();
    assert_eq!(event, "gap");
    assert_eq!(data, json!({"requested": "evt_99", "earliest": "evt_1", "latest": "evt_1"}));
    send(&world, &deployment, "on").await;
    assert_eq!(stream.next().await.unwrap().1, "evt_2");
}

#[tokio::test]
async fn deleting_the_deployment_ends_every_stream() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let mut live = Stream::open(&world, &World::path(&deployment, "/events"), None).await;
    let mut filtered = Stream::open(&world, &World::path(&deployment, "/events?types=token"), None).await;
    world.call(&world.writer, http::Method::DELETE, &World::path(&deployment, ""), None).await;
    let (event, _, data) = live.next().await.unwrap();
    assert_eq!((event.as_str(), data), ("deployment_status", json!({"status": "deleted"})));
    assert!(live.next().await.is_none());
    assert!(filtered.next().await.is_none());
}

#[tokio::test]
async fn streams_end_with_a_retry_delay_when_the_server_shuts_down() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let mut stream = Stream::open(&world, &World::path(&deployment, "/events"), None).await;
    world.app.drain();
    let mut text = String::new();
    while let Some(chunk) = stream.body.next().await {
        text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
    }
    assert!(text.starts_with(": herm\nid: evt_1\nretry: ") && text.ends_with("retry: 1000\n\n"), "{text:?}");
}

#[tokio::test]
async fn stored_events_are_listed_oldest_first() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    for _ in 0..3 {
        send(&world, &deployment, "hi").await;
    }
    let list = async |query: &str| {
        let request = Request::builder()
            .uri(World::path(&deployment, &format!("/events?{query}")))
            .header("accept", "application/json")
            .header("authorization", format!("Bearer {}", world.reader));
        crate::world::read(world.send(request.body(Body::empty()).unwrap()).await).await
    };
    let (mut ids, mut query) = (Vec::new(), "limit=2".to_owned());
    loop {
        let page = list(&query).await.json();
        ids.extend(
            page["data"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("limit=2&cursor={cursor}");
    }
    assert_eq!(ids, ["evt_1", "evt_2", "evt_3", "evt_4", "evt_5"]);
    let messages = list("types=message&after=evt_3").await.json();
    assert_eq!(messages["data"].as_array().unwrap().len(), 2);
    assert_eq!(messages["data"][0]["event"], "message");
    assert_eq!(messages["data"][0]["data"]["content"], "hi");
    assert_eq!(list("after=evt_99").await.status_and_code().0, 400);
    assert_eq!(list("limit=0").await.error_paths(), ["limit"]);
}

/// Tokio's paused clock jumps to the next timer when all tasks are idle, so that the test does not wait for the
/// heartbeat in real time.
#[tokio::test(start_paused = true)]
async fn an_idle_stream_sends_heartbeats_with_its_position() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let path = World::path(&deployment, "/events?types=tool_call");
    let mut stream = Stream::open(&world, &path, None).await;
    send(&world, &deployment, "hello").await;
    // The filter matches none of the events, so the heartbeat contains the id of the last event that was skipped.
    let start = tokio::time::Instant::now();
    while !stream.text.contains("\nid: evt_3\n\n") {
        let chunk = stream.body.next().await.unwrap().unwrap();
        stream.text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert!(start.elapsed() <= std::time::Duration::from_secs(15), "{:?}", start.elapsed());
    assert!(stream.text.starts_with(": "), "{}", stream.text);
    assert!(stream.text.contains("retry: "), "{}", stream.text);
    assert!(!stream.text.contains("data:"), "{}", stream.text);
}
