//! Measures a server that stores many deployments, many threads in one deployment, or many past events in one
//! deployment.

use std::time::Instant;

use futures_util::future::try_join_all;
use herm_testkit::process::Server;

use super::{Mode, ms};
use crate::api::Api;
use crate::machine::resident_bytes;
use crate::plot::{Line, Plot};
use crate::report::{Measured, PlotFile, Section, median_and_range};
use crate::setup::{ServerSetup, stop, wait_for_background_work};
use crate::stats::Samples;
use crate::subject::Chat;
use crate::turns::measure_turns;

const SIZES: [usize; 3] = [10, 1_000, 100_000];
const ROUNDS: usize = 3;
/// The number of clients that concurrently create the stored data.
const CLIENTS: usize = 20;
const CONCURRENT_CHATS: usize = 20;
const WINDOW: std::time::Duration = std::time::Duration::from_secs(2);
const MB: f64 = 1e6;

/// The kind of stored data whose amount increases during the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dimension {
    Deployments,
    Threads,
    Events,
}

/// The labels of the metrics, with their units.
const METRICS: [(&str, &str); 9] = [
    ("start to ready", "ms"),
    ("resident after the start", "MB"),
    ("sent → first token, p50", "ms"),
    ("sent → first token, p99", "ms"),
    ("turns, 20 threads", "/s"),
    ("create a deployment, p50", "ms"),
    ("create a thread, p50", "ms"),
    ("list the newest, p50", "ms"),
    ("resume a stream from the last event, p50", "ms"),
];

/// The values of each metric, in the order of [`METRICS`], with one value per round.
type Measurements = [Vec<f64>; METRICS.len()];

pub(super) async fn measure(mode: Mode) -> anyhow::Result<Measured> {
    let mut text = String::new();
    let mut memory = Vec::new();
    for dimension in [Dimension::Deployments, Dimension::Threads, Dimension::Events] {
        let mut columns = Vec::new();
        for size in SIZES {
            let measurements =
                measure_size(dimension, if mode.quick { size.min(20) } else { size }, mode).await?;
            if dimension == Dimension::Deployments {
                let [_, resident, ..] = &measurements;
                memory.push((size as f64, Samples::new(resident.clone())?.median()));
            }
            columns.push(measurements);
        }
        text.push_str(&table(dimension, &columns)?);
    }
    text.push_str(
        "Median (min–max). The measurement itself adds some hundred threads and some thousand events to each server. \
         The events come from runs in separate threads.\n",
    );
    let line = Line { name: "Herm, idle".to_owned(), colour: 0, is_dashed: false, points: memory };
    let plot = Plot {
        title: "Resident memory of an idle server",
        x_label: "deployments",
        y_label: "MB",
        lines: vec![line],
    };
    let plots = vec![PlotFile { name: "memory", plot }];
    Ok(Measured { rows: Vec::new(), section: Some(Section { name: "scale", text }), plots })
}

async fn measure_size(dimension: Dimension, size: usize, mode: Mode) -> anyhow::Result<Measurements> {
    let setup = ServerSetup::new().await?;
    let (server, api) = setup.start().await?;
    let deployment_id = api.create().await?;
    dimension.fill(&api, &deployment_id, size).await?;
    stop(server).await?;
    let mut measurements = Measurements::default();
    for _ in 0..mode.count(ROUNDS, 1) {
        let started = Instant::now();
        let (server, api) = setup.start().await?;
        let started = ms(started.elapsed());
        wait_for_background_work().await;
        let resident = resident_bytes_of(&server)? / MB;
        let [first_token_p50, first_token_p99, turns_per_s] =
            measure_conversations(&api, &deployment_id, mode).await?;
        let round = [
            started,
            resident,
            first_token_p50,
            first_token_p99,
            turns_per_s,
            median_ms(mode, async || api.create().await.map(drop)).await?,
            median_ms(mode, async || api.create_thread(&deployment_id).await.map(drop)).await?,
            median_ms(mode, async || api.get(&dimension.list_path(&deployment_id)).await.map(drop)).await?,
            resume_ms(&api, &deployment_id, mode).await?,
        ];
        for (values, value) in measurements.iter_mut().zip(round) {
            values.push(value);
        }
        stop(server).await?;
    }
    Ok(measurements)
}

fn resident_bytes_of(server: &Server) -> anyhow::Result<f64> {
    resident_bytes(anyhow::Context::context(server.pid(), "the server has exited")?)
}

impl Dimension {
    fn name(self) -> &'static str {
        match self {
            Self::Deployments => "deployments",
            Self::Threads => "threads in one deployment",
            Self::Events => "past events in one deployment",
        }
    }

    /// Returns the API path of the list that grows with the stored data. The benchmark reads its newest entries.
    fn list_path(self, deployment_id: &str) -> String {
        match self {
            Self::Deployments => "/v1/deployments".to_owned(),
            Self::Threads => format!("/v1/deployments/{deployment_id}/threads"),
            Self::Events => format!("/v1/deployments/{deployment_id}/events"),
        }
    }

    /// Creates data of this kind until the server stores `size` items.
    async fn fill(self, api: &Api, deployment_id: &str, size: usize) -> anyhow::Result<()> {
        let clients = (0..CLIENTS).map(|client| async move {
            // If `size` is not divisible by the number of clients, the first clients each create one more item.
            let share = size / CLIENTS + usize::from(client < size % CLIENTS);
            match self {
                Self::Deployments => api.create_many(share).await.map(drop)?,
                Self::Threads => {
                    for _ in 0..share {
                        api.create_thread(deployment_id).await?;
                    }
                }
                Self::Events => complete_runs_until(api, deployment_id, size as u64).await?,
            }
            anyhow::Ok(())
        });
        try_join_all(clients).await.map(drop)
    }
}

/// Completes runs until the deployment has at least `events` events. Each run is in a new thread.
async fn complete_runs_until(api: &Api, deployment_id: &str, events: u64) -> anyhow::Result<()> {
    let mut last = 0;
    while last < events {
        let thread_id = api.send(deployment_id, "new", "hello").await?;
        let mut stream =
            api.stream(deployment_id, &format!("?thread_id={thread_id}&after=evt_{last}")).await?;
        stream.wait_for_completion().await?;
        last = stream.last_number()?;
    }
    Ok(())
}

/// Returns the median and the 99th percentile of the time to first token with one conversation, in milliseconds, and
/// the turns per second with concurrent conversations.
async fn measure_conversations(api: &Api, deployment_id: &str, mode: Mode) -> anyhow::Result<[f64; 3]> {
    let window = if mode.quick { std::time::Duration::ZERO } else { WINDOW };
    let chat = Chat::begin_herm(api, deployment_id).await?;
    let (_, single) = measure_turns(vec![chat], window).await?;
    let chats = (0..mode.count(CONCURRENT_CHATS, 2)).map(|_| Chat::begin_herm(api, deployment_id));
    let (_, concurrent) = measure_turns(try_join_all(chats).await?, window).await?;
    Ok([single.first_token_ms.median(), single.first_token_ms.percentile(99), concurrent.turns_per_s])
}

/// Returns the median time to resume a stream and receive the first event, in milliseconds. The stream resumes after
/// the second-to-last event, so it receives one event.
async fn resume_ms(api: &Api, deployment_id: &str, mode: Mode) -> anyhow::Result<f64> {
    let mut stream = api.stream(deployment_id, "").await?;
    api.send(deployment_id, "new", "hello").await?;
    stream.wait_for_completion().await?;
    let query = format!("?after=evt_{}", stream.last_number()?.saturating_sub(1));
    median_ms(mode, async || {
        let mut stream = api.stream(deployment_id, &query).await?;
        stream.next().await.map(drop)
    })
    .await
}

/// Executes an operation repeatedly and returns the median duration in milliseconds.
async fn median_ms(mode: Mode, operation: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut durations = Vec::new();
    for _ in 0..mode.count(100, 2) {
        let started = Instant::now();
        operation().await?;
        durations.push(ms(started.elapsed()));
    }
    Ok(Samples::new(durations)?.median())
}

fn table(dimension: Dimension, columns: &[Measurements]) -> anyhow::Result<String> {
    let mut text = format!("| {} | 10 | 1,000 | 100,000 |\n|---|---|---|---|\n", dimension.name());
    for (number, (label, unit)) in METRICS.iter().enumerate() {
        let mut cells = Vec::new();
        for column in columns {
            let values = Samples::new(column.get(number).cloned().unwrap_or_default())?;
            cells.push(format!("{} {unit}", median_and_range(&values)));
        }
        text.push_str(&format!("| {label} | {} |\n", cells.join(" | ")));
    }
    text.push('\n');
    Ok(text)
}
