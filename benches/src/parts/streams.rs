//! Many open streams while events happen: how late each event reaches each reader.
//!
//! The model's replies wait before each piece of text. When a piece is let go its instant is noted under its number,
//! which is the piece's text; a reader that sees the number looks the instant up. So the figure spans the model's
//! stream, the commit and the delivery, on one clock.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use herm_testkit::model_server::{Gate, Reply};

use super::{Part, Scale, ms};
use crate::api::Api;
use crate::bed::{Bed, settle};
use crate::frames::Frames;
use crate::machine;
use crate::report::{Bar, Row};
use crate::stats::Samples;

/// Replies that are under way side by side.
const REPLIES: usize = 20;
const STREAMS: usize = 2_000;
/// Between two events of all.
const EVERY: Duration = Duration::from_millis(10);
/// Open files beside the streams.
const OTHER_FILES: u64 = 500;

/// A piece of text: when it is let go, and when it was.
struct Piece {
    gate: Gate,
    let_go: OnceLock<Instant>,
}

pub(super) async fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let streams = scale.of(STREAMS, 10);
    let needed = streams as u64 + OTHER_FILES;
    ensure!(
        machine::file_limit().is_none_or(|limit| limit >= needed),
        "{needed} open files are needed; raise the hard limit (`ulimit -Hn`)"
    );
    let (mut apart, mut together) = (Vec::new(), Vec::new());
    for _ in 0..scale.of(3, 1) {
        apart.push(late(scale.of(REPLIES, 2), streams, scale).await?);
        together.push(late(1, streams, scale).await?);
    }
    let of = |samples: &[Samples], percent| samples.iter().map(|of_one| of_one.percentile(percent)).collect();
    let middle = |samples: &[Samples]| {
        Samples::new(of(samples, 50)).map(|p50| format!("p50 {:.1} ms; 100 events/s in all", p50.median()))
    };
    let bar = Bar::Below(100.0);
    let what = "2,000 streams of 20 deployments, p99";
    let crowded = "2,000 streams of 1 deployment, p99";
    Ok(vec![
        Part::Streams.row(
            what,
            bar,
            "ms",
            of(&apart, 99),
            format!("{}: 10,000 deliveries/s", middle(&apart)?),
        )?,
        Part::Streams.row(
            crowded,
            bar,
            "ms",
            of(&together, 99),
            format!("{}: 200,000 deliveries/s", middle(&together)?),
        )?,
    ])
}

/// How late each event reached each reader, in milliseconds; the streams are shared out among the deployments.
async fn late(deployments: usize, streams: usize, scale: Scale) -> anyhow::Result<Samples> {
    let replies = scale.of(REPLIES, 2);
    let pieces: Arc<Vec<Piece>> = Arc::new((0..scale.of(1_000, 20)).map(|_| Piece::new()).collect());
    let bed = Bed::new().await?;
    let script = Arc::clone(&pieces);
    bed.respond_with(move |request| reply(&script, replies, &request.last_user_text()));
    let (_server, api) = bed.start().await?;
    let deployments = api.create_many(deployments).await?;
    // Piece number n belongs to reply number n modulo the replies, and so to this deployment.
    let expected = pieces.len() / deployments.len();
    let readers = open(&api, &deployments, streams).await?;
    let readers: Vec<_> =
        readers.into_iter().map(|frames| tokio::spawn(read(frames, Arc::clone(&pieces), expected))).collect();
    for (number, deployment_id) in deployments.iter().cycle().take(replies).enumerate() {
        api.send(deployment_id, "new", &number.to_string()).await?;
    }
    for first in pieces.iter().take(replies) {
        first.gate.reached().await;
    }
    settle().await;
    let mut clock = tokio::time::interval(EVERY);
    for piece in pieces.iter() {
        clock.tick().await;
        piece.let_go.get_or_init(Instant::now);
        piece.gate.open();
    }
    let mut all = Vec::new();
    for reader in readers {
        all.extend(reader.await.context("a reader panicked")??);
    }
    Samples::new(all)
}

impl Piece {
    fn new() -> Self {
        Self { gate: Gate::new(), let_go: OnceLock::new() }
    }
}

/// The reply of this number: every piece that belongs to it, each when it is let go.
fn reply(pieces: &[Piece], replies: usize, number: &str) -> Reply {
    let number = number.parse().unwrap_or(0);
    let own = pieces.iter().enumerate().skip(number).step_by(replies);
    own.fold(Reply::new(), |reply, (at, piece)| reply.gate(&piece.gate).then_text(format!("{at} ")))
}

async fn open(api: &Api, deployments: &[String], streams: usize) -> anyhow::Result<Vec<Frames>> {
    let each = streams / deployments.len();
    let mut readers = Vec::with_capacity(streams);
    for deployment_id in deployments {
        readers.extend(try_join_all((0..each).map(|_| api.stream(deployment_id, ""))).await?);
    }
    Ok(readers)
}

/// Reads until all expected pieces have come.
async fn read(mut frames: Frames, pieces: Arc<Vec<Piece>>, expected: usize) -> anyhow::Result<Vec<f64>> {
    let mut late = Vec::with_capacity(expected);
    while late.len() < expected {
        let frame = frames.next().await?;
        if frame.name != "token" {
            continue;
        }
        let now = Instant::now();
        for number in frame.delta().unwrap_or_default().split_whitespace() {
            let piece = number.parse().ok().and_then(|at: usize| pieces.get(at));
            let let_go =
                piece.and_then(|piece| piece.let_go.get()).context("a token is no piece's number")?;
            late.push(ms(now.duration_since(*let_go)));
        }
    }
    Ok(late)
}
