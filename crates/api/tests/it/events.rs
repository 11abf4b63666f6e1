//! `…/events`: live, resumed, filtered, listed.

use axum::body::Body;
use futures_util::StreamExt as _;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::world::World;

/// An open stream, and what came over it so far.
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

    /// The next event: type, id, data. `None` at the stream's end.
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

async fn send(world: &World, made: &Value, content: &str) {
    let answer = world.post(&World::path(made, "/messages"), &json!({"content": content})).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_stream_begins_at_the_head_and_goes_on_live() {
    let world = World::new().await;
    let made = world.deployment().await;
    send(&world, &made, "before").await;
    let mut stream = Stream::open(&world, &World::path(&made, "/events"), None).await;
    send(&world, &made, "after").await;
    let (event, id, data) = stream.next().await.unwrap();
    assert_eq!((event.as_str(), id.as_str(), &data["content"]), ("message", "evt_4", &json!("after")));
}

#[tokio::test]
async fn a_stream_says_first_where_it_begins_unless_a_gap_does() {
    let world = World::new().await;
    let made = world.deployment().await;
    send(&world, &made, "before").await;
    for (query, beginning) in [
        ("", ": herm\nid: evt_3\nretry: 1000\n\n"),
        ("?after=evt_2", ": herm\nid: evt_2\nretry: 1000\n\n"),
        ("?after=evt_9", ": herm\nretry: 1000\n\n"),
    ] {
        let path = World::path(&made, &format!("/events{query}"));
        let mut stream = Stream::open(&world, &path, None).await;
        let chunk = stream.body.next().await.unwrap().unwrap();
        assert_eq!(std::str::from_utf8(&chunk).unwrap(), beginning);
    }
}

#[tokio::test]
async fn a_resumed_stream_has_no_gap_and_no_duplicate() {
    let world = World::new().await;
    let made = world.deployment().await;
    for number in 0..600 {
        let body = json!({"content": number.to_string(), "thread_id": "new"});
        world.post(&World::path(&made, "/messages"), &body).await;
    }
    let path = World::path(&made, "/events?after=evt_0");
    // The header goes before the parameter: it is what a browser sends when it comes back.
    let mut stream = Stream::open(&world, &path, Some("evt_5")).await;
    send(&world, &made, "live").await;
    for expected in 6..=1203 {
        assert_eq!(stream.next().await.unwrap().1, format!("evt_{expected}"));
    }
}

#[tokio::test]
async fn a_filter_lets_through_what_it_names() {
    let world = World::new().await;
    let made = world.deployment().await;
    let mine = world
        .post(&World::path(&made, "/messages"), &json!({"content": "a", "thread_id": "new"}))
        .await
        .json();
    send(&world, &made, "b").await;
    let query =
        format!("/events?after=evt_0&types=message,token&thread_id={}", mine["thread_id"].as_str().unwrap());
    let mut stream = Stream::open(&world, &World::path(&made, &query), None).await;
    let again = json!({"content": "c", "thread_id": mine["thread_id"]});
    world.post(&World::path(&made, "/messages"), &again).await;
    let contents = [
        stream.next().await.unwrap().2["content"].clone(),
        stream.next().await.unwrap().2["content"].clone(),
    ];
    assert_eq!(contents, [json!("a"), json!("c")]);
    let refused = world.get(&World::path(&made, "/events?types=message,odd&run_id=x&after=5")).await;
    assert_eq!(refused.faults(), ["run_id", "types", "after"]);
}

#[tokio::test]
async fn what_lies_beyond_the_head_is_a_gap() {
    let world = World::new().await;
    let made = world.deployment().await;
    let mut stream = Stream::open(&world, &World::path(&made, "/events?after=evt_99"), None).await;
    let (event, _, data) = stream.next().await.unwrap();
    assert_eq!(event, "gap");
    assert_eq!(data, json!({"requested": "evt_99", "earliest": "evt_1", "latest": "evt_1"}));
    send(&world, &made, "on").await;
    assert_eq!(stream.next().await.unwrap().1, "evt_2");
}

#[tokio::test]
async fn a_deletion_is_the_last_event_of_every_stream() {
    let world = World::new().await;
    let made = world.deployment().await;
    let mut live = Stream::open(&world, &World::path(&made, "/events"), None).await;
    let mut filtered = Stream::open(&world, &World::path(&made, "/events?types=token"), None).await;
    world.call(&world.writer, http::Method::DELETE, &World::path(&made, ""), None).await;
    let (event, _, data) = live.next().await.unwrap();
    assert_eq!((event.as_str(), data), ("deployment_status", json!({"status": "deleted"})));
    assert!(live.next().await.is_none());
    assert!(filtered.next().await.is_none());
}

#[tokio::test]
async fn streams_end_with_a_retry_hint_while_the_server_stops() {
    let world = World::new().await;
    let made = world.deployment().await;
    let mut stream = Stream::open(&world, &World::path(&made, "/events"), None).await;
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
    let made = world.deployment().await;
    for _ in 0..3 {
        send(&world, &made, "hi").await;
    }
    let list = async |query: &str| {
        let request = Request::builder()
            .uri(World::path(&made, &format!("/events?{query}")))
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
    assert_eq!(list("after=evt_99").await.refusal().0, 400);
    assert_eq!(list("limit=0").await.faults(), ["limit"]);
}

/// Time stands, and jumps ahead whenever nothing else is left to do: a heartbeat's wait takes none.
#[tokio::test(start_paused = true)]
async fn a_silent_stream_beats_and_says_how_far_it_is() {
    let world = World::new().await;
    let made = world.deployment().await;
    let path = World::path(&made, "/events?types=tool_call");
    let mut stream = Stream::open(&world, &path, None).await;
    send(&world, &made, "hello").await;
    // The filter lets nothing through; the beat tells the last event that it has considered.
    let begun = tokio::time::Instant::now();
    while !stream.text.contains("\nid: evt_3\n\n") {
        let chunk = stream.body.next().await.unwrap().unwrap();
        stream.text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert!(begun.elapsed() <= std::time::Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(stream.text.starts_with(": "), "{}", stream.text);
    assert!(stream.text.contains("retry: "), "{}", stream.text);
    assert!(!stream.text.contains("data:"), "{}", stream.text);
}
