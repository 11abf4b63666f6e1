//! Measures the delay with which events are delivered while many streams are open.
//!
//! A reply consists of deltas, which are pieces of streamed text. The scripted model sends each delta only when the
//! benchmark releases it. The benchmark releases the deltas at a fixed interval and records the time of each release.
//! The text of a delta is the delta's index, by which a reader finds that time. The delay is the time from the release
//! until the reader receives the delta. In that time, the model sends the delta to the server, and the server commits
//! it and delivers it to the reader.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use herm_testkit::model_server::{Gate, Reply};

use super::{Mode, Part, ms};
use crate::api::Api;
use crate::event_stream::EventStream;
use crate::machine;
use crate::report::{Row, Target};
use crate::setup::{ServerSetup, wait_for_background_work};
use crate::stats::Samples;

/// The number of replies that stream concurrently.
const REPLIES: usize = 20;
const STREAMS: usize = 2_000;
/// The interval at which the benchmark lets the model send the next delta. Consecutive deltas belong to different
/// replies.
const EVENT_INTERVAL: Duration = Duration::from_millis(10);
/// An upper bound for the number of files that this process opens in addition to the streams.
const OTHER_FILES: u64 = 500;

/// A delta of a reply: the gate at which the model waits before it sends the delta, and the time at which the benchmark
/// opened the gate.
struct Piece {
    gate: Gate,
    released_at: OnceLock<Instant>,
}

pub(super) async fn measure(mode: Mode) -> anyhow::Result<Vec<Row>> {
    let streams = mode.count(STREAMS, 10);
    let needed = streams as u64 + OTHER_FILES;
    ensure!(
        machine::file_limit().is_none_or(|limit| limit >= needed),
        "the benchmark needs {needed} open files: raise the hard limit (`ulimit -Hn`)"
    );
    let (mut apart, mut together) = (Vec::new(), Vec::new());
    for _ in 0..mode.count(3, 1) {
        apart.push(delivery_delays(mode.count(REPLIES, 2), streams, mode).await?);
        together.push(delivery_delays(1, streams, mode).await?);
    }
    let percentiles =
        |samples: &[Samples], percent| samples.iter().map(|one| one.percentile(percent)).collect();
    let p50_note = |samples: &[Samples]| {
        Samples::new(percentiles(samples, 50))
            .map(|p50| format!("p50 {:.1} ms; 100 events/s in total", p50.median()))
    };
    let target = Target::Below(100.0);
    let apart_label = "2,000 streams of 20 deployments, p99";
    let together_label = "2,000 streams of 1 deployment, p99";
    Ok(vec![
        Part::Streams.row(
            apart_label,
            target,
            "ms",
            percentiles(&apart, 99),
            format!("{}: 10,000 deliveries/s", p50_note(&apart)?),
        )?,
        Part::Streams.row(
            together_label,
            target,
            "ms",
            percentiles(&together, 99),
            format!("{}: 200,000 deliveries/s", p50_note(&together)?),
        )?,
    ])
}

/// Returns the delays in milliseconds of all events on all streams. The streams are distributed evenly over the
/// deployments.
async fn delivery_delays(deployments: usize, streams: usize, mode: Mode) -> anyhow::Result<Samples> {
    let replies = mode.count(REPLIES, 2);
    let pieces: Arc<Vec<Piece>> = Arc::new((0..mode.count(1_000, 20)).map(|_| Piece::new()).collect());
    let setup = ServerSetup::new().await?;
    let reply_pieces = Arc::clone(&pieces);
    setup.respond_with(move |request| reply(&reply_pieces, replies, &request.last_user_text()));
    let (_server, api) = setup.start().await?;
    let deployments = api.create_many(deployments).await?;
    // The deltas are distributed over the replies round-robin, and the replies over the deployments likewise. Every
    // deployment therefore receives the same number of deltas.
    let expected = pieces.len() / deployments.len();
    let readers = open_streams(&api, &deployments, streams).await?;
    let readers: Vec<_> = readers
        .into_iter()
        .map(|stream| tokio::spawn(read_delays(stream, Arc::clone(&pieces), expected)))
        .collect();
    for (number, deployment_id) in deployments.iter().cycle().take(replies).enumerate() {
        api.send(deployment_id, "new", &number.to_string()).await?;
    }
    for first in pieces.iter().take(replies) {
        first.gate.reached().await;
    }
    wait_for_background_work().await;
    let mut interval = tokio::time::interval(EVENT_INTERVAL);
    for piece in pieces.iter() {
        interval.tick().await;
        piece.released_at.get_or_init(Instant::now);
        piece.gate.open();
    }
    let mut all = Vec::new();
    for reader in readers {
        all.extend(reader.await.context("the reader of a stream panicked")??);
    }
    Samples::new(all)
}

impl Piece {
    fn new() -> Self {
        Self { gate: Gate::new(), released_at: OnceLock::new() }
    }
}

/// Creates the reply with the index `number`. It consists of every `replies`-th delta in `pieces`, beginning with the
/// delta at that index.
fn reply(pieces: &[Piece], replies: usize, number: &str) -> Reply {
    let number = number.parse().unwrap_or(0);
    let own = pieces.iter().enumerate().skip(number).step_by(replies);
    own.fold(Reply::new(), |reply, (at, piece)| reply.gate(&piece.gate).then_text(format!("{at} ")))
}

async fn open_streams(api: &Api, deployments: &[String], streams: usize) -> anyhow::Result<Vec<EventStream>> {
    let per_deployment = streams / deployments.len();
    let mut readers = Vec::with_capacity(streams);
    for deployment_id in deployments {
        readers.extend(try_join_all((0..per_deployment).map(|_| api.stream(deployment_id, ""))).await?);
    }
    Ok(readers)
}

/// Reads a stream until all expected deltas have arrived. Returns their delays in milliseconds.
async fn read_delays(
    mut stream: EventStream,
    pieces: Arc<Vec<Piece>>,
    expected: usize,
) -> anyhow::Result<Vec<f64>> {
    let mut delays = Vec::with_capacity(expected);
    while delays.len() < expected {
        let frame = stream.next().await?;
        if frame.name != "token" {
            continue;
        }
        let now = Instant::now();
        for number in frame.delta().unwrap_or_default().split_whitespace() {
            let piece = number.parse().ok().and_then(|at: usize| pieces.get(at));
            let released_at = piece
                .and_then(|piece| piece.released_at.get())
                .context("the text of a token is not the number of a released delta")?;
            delays.push(ms(now.duration_since(*released_at)));
        }
    }
    Ok(delays)
}
