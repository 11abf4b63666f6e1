//! Tests of event streams under load: many streams, slow readers, filters, reconnects, and trimmed event logs.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use herm_store::events;
use herm_types::event::{Event, EventFilter, StoredEvent};
use herm_types::run::RunStatus;
use herm_types::{DeploymentId, EventId, MessageId, RunId, ThreadId};
use http::Request;
use serde_json::{Value, json};

use crate::events::Stream;
use crate::world::World;

fn id_of(deployment: &Value) -> DeploymentId {
    deployment["deployment_id"].as_str().unwrap().parse().unwrap()
}

async fn emit(world: &World, deployment_id: DeploymentId, events: Vec<Event>) {
    let emitted = world.store.transaction("emit", move |tx| {
        Box::pin(async move {
            events.into_iter().for_each(|event| tx.emit(deployment_id, event));
            Ok::<_, herm_store::Error>(())
        })
    });
    emitted.await.unwrap();
}

async fn emit_ready(world: &World, deployment_id: DeploymentId, count: usize) {
    emit(world, deployment_id, vec![Event::deployment_status("ready"); count]).await;
}

/// Trims the event log of a deployment: deletes the events that are older than a day.
async fn trim(world: &World, deployment_id: DeploymentId) {
    let trimmed = world.store.transaction("trim", move |tx| {
        let before = tx.now().plus_ms(-24 * 60 * 60 * 1000);
        Box::pin(events::trim(tx, deployment_id, before, 10_000))
    });
    assert!(trimmed.await.unwrap() > 0);
}

async fn open(world: &World, deployment: &Value, query: &str) -> Stream {
    Stream::open_with(world, &world.writer, &World::path(deployment, &format!("/events?{query}")), None).await
}

/// Creates a deployment whose event log contains three events. All earlier events, up to and including `evt_<last>`,
/// have been trimmed.
async fn trimmed(world: &World, last: usize) -> Value {
    let deployment = world.deployment().await;
    emit_ready(world, id_of(&deployment), last - 1).await;
    world.clock.advance_ms(2 * 24 * 60 * 60 * 1000);
    emit_ready(world, id_of(&deployment), 3).await;
    trim(world, id_of(&deployment)).await;
    deployment
}

#[tokio::test]
async fn a_stream_from_a_trimmed_position_has_a_gap_and_then_the_stored_events() {
    let world = World::new().await;
    let deployment = trimmed(&world, 10).await;
    for requested in ["evt_0", "evt_4", "evt_9"] {
        let mut stream =
            open(&world, &deployment, &format!("after={requested}&types=deployment_status")).await;
        let (event, id, data) = stream.next().await.unwrap();
        // The `gap` event has the id of the last trimmed event, so a stream that resumes from it continues with the
        // stored events.
        assert_eq!((event.as_str(), id.as_str()), ("gap", "evt_10"));
        assert_eq!(data, json!({"requested": requested, "earliest": "evt_11", "latest": "evt_13"}));
        for stored in ["evt_11", "evt_12", "evt_13"] {
            assert_eq!(stream.next().await.unwrap().1, stored);
        }
    }
    let mut complete = open(&world, &deployment, "after=evt_10").await;
    assert_eq!(complete.next().await.unwrap().1, "evt_11");
    // The stream reports the gap even if the filter matches no events.
    let mut filtered = open(&world, &deployment, "after=evt_4&types=token").await;
    assert_eq!(filtered.next().await.unwrap().0, "gap");
    let mut beyond = open(&world, &deployment, "after=evt_99").await;
    let (_, id, data) = beyond.next().await.unwrap();
    assert_eq!(id, "evt_13");
    assert_eq!(data, json!({"requested": "evt_99", "earliest": "evt_11", "latest": "evt_13"}));

    let path = World::path(&deployment, "/events?after=evt_4");
    let request = Request::builder().uri(path).header("accept", "application/json");
    let request = request.header("authorization", format!("Bearer {}", world.reader));
    let listed = crate::world::read(world.send(request.body(Body::empty()).unwrap()).await).await.json();
    assert_eq!((&listed["data"][0]["id"], listed["data"].as_array().unwrap().len()), (&json!("evt_11"), 3));
}

#[tokio::test]
async fn events_trimmed_during_replay_are_a_gap() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    // The number of events to trim. The server reads ahead of the client by at most one chunk of the response and one
    // page of the event log. This number is greater, so the server has not read all of these events when they are
    // trimmed.
    let old = 3000;
    emit_ready(&world, id_of(&deployment), old - 1).await;
    let mut stream = open(&world, &deployment, "after=evt_0").await;
    assert_eq!(stream.next().await.unwrap().1, "evt_1");
    world.clock.advance_ms(2 * 24 * 60 * 60 * 1000);
    emit_ready(&world, id_of(&deployment), 1).await;
    trim(&world, id_of(&deployment)).await;
    let mut last = 1;
    loop {
        let (event, id, data) = stream.next().await.unwrap();
        if event == "gap" {
            let requested = format!("evt_{last}");
            assert_eq!(data, json!({"requested": requested, "earliest": "evt_3001", "latest": "evt_3001"}));
            assert!(last < old, "the gap skips no events");
            break;
        }
        last += 1;
        assert_eq!(id, format!("evt_{last}"));
        assert!(last <= old, "the stream has no gap");
    }
    assert_eq!(stream.next().await.unwrap().1, "evt_3001");
}

#[tokio::test]
async fn a_slow_reader_is_disconnected_without_delaying_others() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let mut slow = open(&world, &deployment, "").await;
    let mut quick = open(&world, &deployment, "").await;
    emit_ready(&world, id_of(&deployment), 1).await;
    assert_eq!(slow.next().await.unwrap().1, "evt_2");
    assert_eq!(quick.next().await.unwrap().1, "evt_2");
    for round in 0..20 {
        emit_ready(&world, id_of(&deployment), 100).await;
        for number in 0..100 {
            assert_eq!(quick.next().await.unwrap().1, format!("evt_{}", 3 + round * 100 + number));
        }
    }
    // The server has ended the stream, because its reader fell behind by more events than the server retains in memory.
    assert!(slow.next().await.is_none());
    let path = World::path(&deployment, "/events");
    let mut resumed = Stream::open_with(&world, &world.writer, &path, Some("evt_2")).await;
    for number in 3..=2002 {
        assert_eq!(resumed.next().await.unwrap().1, format!("evt_{number}"));
    }
}

#[tokio::test]
async fn a_waiting_reader_is_not_disconnected_for_events_that_its_filter_skips() {
    // The number of events that the filter skips. It is greater than the number of events that the server retains in
    // memory.
    const OTHERS: usize = 600;
    let world = World::new().await;
    let deployment = world.deployment().await;
    let token = || Event::Token {
        run_id: world.ids.next(),
        thread_id: world.ids.next(),
        message_id: world.ids.next(),
        delta: "ok".to_owned(),
    };
    let mut waiting = open(&world, &deployment, "types=token").await;
    emit(&world, id_of(&deployment), vec![token()]).await;
    assert_eq!(waiting.next().await.unwrap().1, "evt_2");
    let mut burst = vec![Event::deployment_status("ready"); OTHERS];
    burst.push(token());
    let (next, ()) = tokio::join!(waiting.next(), emit(&world, id_of(&deployment), burst));
    assert_eq!(next.unwrap().1, format!("evt_{}", 3 + OTHERS));
}

#[tokio::test]
async fn a_stream_continues_after_a_commit_with_unknown_outcome() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let mut stream = open(&world, &deployment, "").await;
    emit_ready(&world, id_of(&deployment), 1).await;
    assert_eq!(stream.next().await.unwrap().1, "evt_2");
    world.store.feed().close_channel(id_of(&deployment));
    emit_ready(&world, id_of(&deployment), 2).await;
    for number in [3, 4] {
        assert_eq!(stream.next().await.unwrap().1, format!("evt_{number}"));
    }
    emit_ready(&world, id_of(&deployment), 1).await;
    assert_eq!(stream.next().await.unwrap().1, "evt_5");
}

#[tokio::test]
async fn a_thousand_streams_receive_the_same_events() {
    const STREAMS: usize = 1000;
    const EVENTS: usize = 30;
    let world = World::new().await;
    let deployment = world.deployment().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(open(&world, &deployment, "").await);
    }
    let reading = streams.into_iter().map(|mut stream| async move {
        for number in 0..EVENTS {
            assert_eq!(stream.next().await.unwrap().1, format!("evt_{}", number + 2));
        }
    });
    let writing = async {
        for _ in 0..EVENTS {
            emit_ready(&world, id_of(&deployment), 1).await;
        }
    };
    tokio::join!(futures_util::future::join_all(reading), writing);
}

/// A pseudorandom number generator whose numbers are determined by a seed.
struct TestRng(u64);

impl TestRng {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// Generates random events and filters for a fixed set of runs and threads.
#[derive(Clone, Copy)]
struct EventGenerator {
    runs: [(RunId, ThreadId); 4],
    message_id: MessageId,
}

impl EventGenerator {
    fn new(world: &World) -> Self {
        let threads: [ThreadId; 2] = [world.ids.next(), world.ids.next()];
        let runs = [0, 0, 1, 1].map(|thread: usize| (world.ids.next(), threads[thread]));
        Self { runs, message_id: world.ids.next() }
    }

    fn event(&self, rng: &mut TestRng) -> Event {
        let (run_id, thread_id) = self.runs[rng.below(4)];
        let message_id = self.message_id;
        match rng.below(4) {
            0 => Event::deployment_status("ready"),
            1 => Event::RunStatus { run_id, thread_id, status: RunStatus::Running, error: None, usage: None },
            _ => Event::Token { run_id, thread_id, message_id, delta: rng.below(1000).to_string() },
        }
    }

    fn filter(&self, rng: &mut TestRng) -> EventFilter {
        let (run_id, thread_id) = self.runs[rng.below(4)];
        let types = [vec![], vec![], vec!["token"], vec!["run_status", "deployment_status"]];
        EventFilter {
            thread_id: (rng.below(2) == 0).then_some(thread_id),
            run_id: (rng.below(3) == 0).then_some(run_id),
            types: types[rng.below(4)].iter().map(|name| (*name).to_owned()).collect(),
        }
    }
}

fn query(filter: &EventFilter) -> String {
    let mut query = Vec::new();
    query.extend(filter.thread_id.map(|id| format!("thread_id={id}")));
    query.extend(filter.run_id.map(|id| format!("run_id={id}")));
    if !filter.types.is_empty() {
        query.push(format!("types={}", filter.types.join(",")));
    }
    query.join("&")
}

/// Streams the event log, reconnects at random points, and stops at the event that reports the deployment's deletion.
/// Returns the received events.
async fn follow(
    world: &World,
    deployment: &Value,
    filter: &EventFilter,
    after: i64,
    is_written: &AtomicBool,
    mut rng: TestRng,
) -> Vec<(String, Value)> {
    let path = World::path(deployment, &format!("/events?{}", query(filter)));
    let mut last = format!("evt_{after}");
    let mut received: Vec<(String, Value)> = Vec::new();
    loop {
        let was_written = is_written.load(Ordering::SeqCst);
        let mut stream = Stream::open_with(world, &world.writer, &path, Some(&last)).await;
        let until_break = if rng.below(4) == 0 { usize::MAX } else { 1 + rng.below(40) };
        for _ in 0..until_break {
            let Some((_, id, data)) = stream.next().await else {
                // The server ended the stream: either this reader was too slow, or the deployment has been deleted and
                // no events are left.
                if was_written {
                    return received;
                }
                break;
            };
            last.clone_from(&id);
            let is_end = data["status"] == "deleted";
            received.push((id, data));
            if is_end {
                return received;
            }
        }
    }
}

/// However often the client reconnects, a stream returns exactly the events that follow the start position and match
/// the filter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_filter_and_resume_returns_its_part_of_the_log() {
    const WRITERS: u64 = 4;
    const TRANSACTIONS: usize = 60;
    const READERS: u64 = 60;
    let world = World::new().await;
    let deployment = world.deployment().await;
    let deployment_id = id_of(&deployment);
    let generator = EventGenerator::new(&world);
    let is_written = AtomicBool::new(false);
    let mut rng = TestRng(7);
    emit(&world, deployment_id, (0..700).map(|_| generator.event(&mut rng)).collect()).await;
    let writing = async {
        let writers = (0..WRITERS).map(|number| {
            let world = &world;
            async move {
                let mut rng = TestRng(1000 + number);
                for _ in 0..TRANSACTIONS {
                    let count = 1 + rng.below(20);
                    emit(world, deployment_id, (0..count).map(|_| generator.event(&mut rng)).collect()).await;
                }
            }
        });
        futures_util::future::join_all(writers).await;
        emit(&world, deployment_id, vec![Event::deployment_status("deleted")]).await;
        is_written.store(true, Ordering::SeqCst);
    };
    let reading = (0..READERS).map(|number| {
        let mut rng = TestRng(number);
        let (filter, after) = (generator.filter(&mut rng), rng.below(600) as i64);
        let (world, deployment, is_written) = (&world, &deployment, &is_written);
        async move {
            let received = follow(world, deployment, &filter, after, is_written, rng).await;
            (number, filter, after, received)
        }
    });
    let (results, ()) = tokio::join!(futures_util::future::join_all(reading), writing);
    let log = whole_log(&world, deployment_id).await;
    for (number, filter, after, received) in results {
        let part = log.iter().filter(|event| event.event_id.0 > after && filter.matches(event));
        let expected: Vec<(String, Value)> = part
            .map(|event| (event.event_id.to_string(), serde_json::from_str(&event.data).unwrap()))
            .collect();
        assert_eq!(received, expected, "reader {number}: {filter:?} after {after}");
    }
}

async fn whole_log(world: &World, deployment_id: DeploymentId) -> Vec<StoredEvent> {
    let mut log: Vec<StoredEvent> = Vec::new();
    loop {
        let after = log.last().map_or(EventId(0), |event| event.event_id);
        let read = world
            .store
            .read("log", move |tx| Box::pin(events::read_after(tx, deployment_id, after, events::MAX_READ)));
        let read = read.await.unwrap();
        if read.is_empty() {
            return log;
        }
        log.extend(read);
    }
}
