//! Streams of events under load: many of them, slow ones, filtered ones that break, and logs that are cut short.

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

fn id_of(made: &Value) -> DeploymentId {
    made["deployment_id"].as_str().unwrap().parse().unwrap()
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

/// Removes what is older than a day.
async fn trim(world: &World, deployment_id: DeploymentId) {
    let trimmed = world.store.transaction("trim", move |tx| {
        let before = tx.now().plus_ms(-24 * 60 * 60 * 1000);
        Box::pin(events::trim(tx, deployment_id, before, 10_000))
    });
    assert!(trimmed.await.unwrap() > 0);
}

async fn open(world: &World, made: &Value, query: &str) -> Stream {
    Stream::open_with(world, &world.writer, &World::path(made, &format!("/events?{query}")), None).await
}

/// A deployment whose events up to `evt_<last>` are gone, and three are left behind them.
async fn trimmed(world: &World, last: usize) -> Value {
    let made = world.deployment().await;
    emit_ready(world, id_of(&made), last - 1).await;
    world.clock.advance_ms(2 * 24 * 60 * 60 * 1000);
    emit_ready(world, id_of(&made), 3).await;
    trim(world, id_of(&made)).await;
    made
}

#[tokio::test]
async fn what_is_no_longer_kept_is_a_gap_and_the_stream_goes_on_with_what_is() {
    let world = World::new().await;
    let made = trimmed(&world, 10).await;
    for requested in ["evt_0", "evt_4", "evt_9"] {
        let mut stream = open(&world, &made, &format!("after={requested}&types=deployment_status")).await;
        let (event, id, data) = stream.next().await.unwrap();
        // Who resumes after the gap is given what is kept.
        assert_eq!((event.as_str(), id.as_str()), ("gap", "evt_10"));
        assert_eq!(data, json!({"requested": requested, "earliest": "evt_11", "latest": "evt_13"}));
        for kept in ["evt_11", "evt_12", "evt_13"] {
            assert_eq!(stream.next().await.unwrap().1, kept);
        }
    }
    let mut complete = open(&world, &made, "after=evt_10").await;
    assert_eq!(complete.next().await.unwrap().1, "evt_11");
    // A filter that lets nothing through lets the gap through.
    let mut filtered = open(&world, &made, "after=evt_4&types=token").await;
    assert_eq!(filtered.next().await.unwrap().0, "gap");
    let mut beyond = open(&world, &made, "after=evt_99").await;
    let (_, id, data) = beyond.next().await.unwrap();
    assert_eq!(id, "evt_13");
    assert_eq!(data, json!({"requested": "evt_99", "earliest": "evt_11", "latest": "evt_13"}));

    let path = World::path(&made, "/events?after=evt_4");
    let request = Request::builder().uri(path).header("accept", "application/json");
    let request = request.header("authorization", format!("Bearer {}", world.reader));
    let listed = crate::world::read(world.send(request.body(Body::empty()).unwrap()).await).await.json();
    assert_eq!((&listed["data"][0]["id"], listed["data"].as_array().unwrap().len()), (&json!("evt_11"), 3));
}

#[tokio::test]
async fn what_goes_while_it_is_replayed_is_a_gap_too() {
    let world = World::new().await;
    let made = world.deployment().await;
    // More than one chunk and one read of the log hold together: however far the server reads ahead of the client,
    // events are left that it has not read when they go.
    let old = 3000;
    emit_ready(&world, id_of(&made), old - 1).await;
    let mut stream = open(&world, &made, "after=evt_0").await;
    assert_eq!(stream.next().await.unwrap().1, "evt_1");
    world.clock.advance_ms(2 * 24 * 60 * 60 * 1000);
    emit_ready(&world, id_of(&made), 1).await;
    trim(&world, id_of(&made)).await;
    let mut last = 1;
    loop {
        let (event, id, data) = stream.next().await.unwrap();
        if event == "gap" {
            let requested = format!("evt_{last}");
            assert_eq!(data, json!({"requested": requested, "earliest": "evt_3001", "latest": "evt_3001"}));
            assert!(last < old, "nothing was missing");
            break;
        }
        last += 1;
        assert_eq!(id, format!("evt_{last}"));
        assert!(last <= old, "nothing was missing");
    }
    assert_eq!(stream.next().await.unwrap().1, "evt_3001");
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_dropped_and_holds_nobody_up() {
    let world = World::new().await;
    let made = world.deployment().await;
    let mut slow = open(&world, &made, "").await;
    let mut quick = open(&world, &made, "").await;
    emit_ready(&world, id_of(&made), 1).await;
    assert_eq!(slow.next().await.unwrap().1, "evt_2");
    assert_eq!(quick.next().await.unwrap().1, "evt_2");
    for round in 0..20 {
        emit_ready(&world, id_of(&made), 100).await;
        for number in 0..100 {
            assert_eq!(quick.next().await.unwrap().1, format!("evt_{}", 3 + round * 100 + number));
        }
    }
    // It was more behind than is kept in memory for it.
    assert!(slow.next().await.is_none());
    let path = World::path(&made, "/events");
    let mut resumed = Stream::open_with(&world, &world.writer, &path, Some("evt_2")).await;
    for number in 3..=2002 {
        assert_eq!(resumed.next().await.unwrap().1, format!("evt_{number}"));
    }
}

#[tokio::test]
async fn a_reader_that_waits_is_not_dropped_for_what_its_filter_keeps_from_it() {
    // More than is kept in memory for a reader.
    const OTHERS: usize = 600;
    let world = World::new().await;
    let made = world.deployment().await;
    let token = || Event::Token {
        run_id: world.ids.next(),
        thread_id: world.ids.next(),
        message_id: world.ids.next(),
        delta: "ok".to_owned(),
    };
    let mut waiting = open(&world, &made, "types=token").await;
    emit(&world, id_of(&made), vec![token()]).await;
    assert_eq!(waiting.next().await.unwrap().1, "evt_2");
    let mut burst = vec![Event::deployment_status("ready"); OTHERS];
    burst.push(token());
    let (next, ()) = tokio::join!(waiting.next(), emit(&world, id_of(&made), burst));
    assert_eq!(next.unwrap().1, format!("evt_{}", 3 + OTHERS));
}

#[tokio::test]
async fn a_stream_goes_on_where_it_is_not_known_what_was_committed() {
    let world = World::new().await;
    let made = world.deployment().await;
    let mut stream = open(&world, &made, "").await;
    emit_ready(&world, id_of(&made), 1).await;
    assert_eq!(stream.next().await.unwrap().1, "evt_2");
    world.store.feed().doubt(id_of(&made));
    emit_ready(&world, id_of(&made), 2).await;
    for number in [3, 4] {
        assert_eq!(stream.next().await.unwrap().1, format!("evt_{number}"));
    }
    emit_ready(&world, id_of(&made), 1).await;
    assert_eq!(stream.next().await.unwrap().1, "evt_5");
}

#[tokio::test]
async fn a_thousand_streams_see_the_same() {
    const STREAMS: usize = 1000;
    const EVENTS: usize = 30;
    let world = World::new().await;
    let made = world.deployment().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(open(&world, &made, "").await);
    }
    let reading = streams.into_iter().map(|mut stream| async move {
        for number in 0..EVENTS {
            assert_eq!(stream.next().await.unwrap().1, format!("evt_{}", number + 2));
        }
    });
    let writing = async {
        for _ in 0..EVENTS {
            emit_ready(&world, id_of(&made), 1).await;
        }
    };
    tokio::join!(futures_util::future::join_all(reading), writing);
}

/// Numbers that look random, the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// Where the events of a test come from.
#[derive(Clone, Copy)]
struct Source {
    runs: [(RunId, ThreadId); 4],
    message_id: MessageId,
}

impl Source {
    fn new(world: &World) -> Self {
        let threads: [ThreadId; 2] = [world.ids.next(), world.ids.next()];
        let runs = [0, 0, 1, 1].map(|thread: usize| (world.ids.next(), threads[thread]));
        Self { runs, message_id: world.ids.next() }
    }

    fn event(&self, dice: &mut Dice) -> Event {
        let (run_id, thread_id) = self.runs[dice.below(4)];
        let message_id = self.message_id;
        match dice.below(4) {
            0 => Event::deployment_status("ready"),
            1 => Event::RunStatus { run_id, thread_id, status: RunStatus::Running, error: None, usage: None },
            _ => Event::Token { run_id, thread_id, message_id, delta: dice.below(1000).to_string() },
        }
    }

    fn filter(&self, dice: &mut Dice) -> EventFilter {
        let (run_id, thread_id) = self.runs[dice.below(4)];
        let types = [vec![], vec![], vec!["token"], vec!["run_status", "deployment_status"]];
        EventFilter {
            thread_id: (dice.below(2) == 0).then_some(thread_id),
            run_id: (dice.below(3) == 0).then_some(run_id),
            types: types[dice.below(4)].iter().map(|name| (*name).to_owned()).collect(),
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

/// Follows the log through breaks of its own making, to the deletion that ends it; what it was given.
async fn follow(
    world: &World,
    made: &Value,
    filter: &EventFilter,
    after: i64,
    is_written: &AtomicBool,
    mut dice: Dice,
) -> Vec<(String, Value)> {
    let path = World::path(made, &format!("/events?{}", query(filter)));
    let mut last = format!("evt_{after}");
    let mut given: Vec<(String, Value)> = Vec::new();
    loop {
        let was_written = is_written.load(Ordering::SeqCst);
        let mut stream = Stream::open_with(world, &world.writer, &path, Some(&last)).await;
        let until_break = if dice.below(4) == 0 { usize::MAX } else { 1 + dice.below(40) };
        for _ in 0..until_break {
            let Some((_, id, data)) = stream.next().await else {
                // Ended by us being slow, or by the log's end.
                if was_written {
                    return given;
                }
                break;
            };
            last.clone_from(&id);
            let is_end = data["status"] == "deleted";
            given.push((id, data));
            if is_end {
                return given;
            }
        }
    }
}

/// Whatever is filtered, wherever it begins and however often it breaks: what a stream gives is that part of the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_filter_and_every_resume_give_their_part_of_the_log() {
    const WRITERS: u64 = 4;
    const TRANSACTIONS: usize = 60;
    const READERS: u64 = 60;
    let world = World::new().await;
    let made = world.deployment().await;
    let deployment_id = id_of(&made);
    let source = Source::new(&world);
    let is_written = AtomicBool::new(false);
    let mut dice = Dice(7);
    emit(&world, deployment_id, (0..700).map(|_| source.event(&mut dice)).collect()).await;
    let writing = async {
        let writers = (0..WRITERS).map(|number| {
            let world = &world;
            async move {
                let mut dice = Dice(1000 + number);
                for _ in 0..TRANSACTIONS {
                    let count = 1 + dice.below(20);
                    emit(world, deployment_id, (0..count).map(|_| source.event(&mut dice)).collect()).await;
                }
            }
        });
        futures_util::future::join_all(writers).await;
        emit(&world, deployment_id, vec![Event::deployment_status("deleted")]).await;
        is_written.store(true, Ordering::SeqCst);
    };
    let reading = (0..READERS).map(|number| {
        let mut dice = Dice(number);
        let (filter, after) = (source.filter(&mut dice), dice.below(600) as i64);
        let (world, made, is_written) = (&world, &made, &is_written);
        async move {
            let given = follow(world, made, &filter, after, is_written, dice).await;
            (number, filter, after, given)
        }
    });
    let (found, ()) = tokio::join!(futures_util::future::join_all(reading), writing);
    let log = whole_log(&world, deployment_id).await;
    for (number, filter, after, given) in found {
        let part = log.iter().filter(|event| event.event_id.0 > after && filter.wants(event));
        let expected: Vec<(String, Value)> = part
            .map(|event| (event.event_id.to_string(), serde_json::from_str(&event.data).unwrap()))
            .collect();
        assert_eq!(given, expected, "reader {number}: {filter:?} after {after}");
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
