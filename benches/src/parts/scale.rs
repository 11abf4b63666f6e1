//! What things cost when there is much: deployments, threads of one deployment, past events of one deployment.

use std::time::Instant;

use futures_util::future::try_join_all;
use herm_testkit::process::Server;

use super::{Scale, ms};
use crate::api::Api;
use crate::bed::{Bed, settle, stop};
use crate::drive::drive;
use crate::machine::resident_bytes;
use crate::plot::{Line, Plot};
use crate::report::{Measured, PlotFile, Section, spread};
use crate::stats::Samples;
use crate::subject::Talk;

const SIZES: [usize; 3] = [10, 1_000, 100_000];
const ROUNDS: usize = 3;
/// Clients that fill the store side by side.
const CLIENTS: usize = 20;
const CROWD: usize = 20;
const WINDOW: std::time::Duration = std::time::Duration::from_secs(2);
const MB: f64 = 1e6;

/// What there is much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Many {
    Deployments,
    Threads,
    Events,
}

/// What is measured, with its unit.
const WHAT: [(&str, &str); 9] = [
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

type Figures = [Vec<f64>; WHAT.len()];

pub(super) async fn measure(scale: Scale) -> anyhow::Result<Measured> {
    let mut text = String::new();
    let mut memory = Vec::new();
    for many in [Many::Deployments, Many::Threads, Many::Events] {
        let mut columns = Vec::new();
        for size in SIZES {
            let figures = of_size(many, if scale.quick { size.min(20) } else { size }, scale).await?;
            if many == Many::Deployments {
                let [_, resident, ..] = &figures;
                memory.push((size as f64, Samples::new(resident.clone())?.median()));
            }
            columns.push(figures);
        }
        text.push_str(&table(many, &columns)?);
    }
    text.push_str(
        "Median (min–max). The measuring itself adds some hundred threads and some thousand events to each. Events \
         come from runs in threads of their own.\n",
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

async fn of_size(many: Many, size: usize, scale: Scale) -> anyhow::Result<Figures> {
    let bed = Bed::new().await?;
    let (server, api) = bed.start().await?;
    let deployment_id = api.create().await?;
    many.fill(&api, &deployment_id, size).await?;
    stop(server).await?;
    let mut figures = Figures::default();
    for _ in 0..scale.of(ROUNDS, 1) {
        let begun = Instant::now();
        let (server, api) = bed.start().await?;
        let started = ms(begun.elapsed());
        settle().await;
        let resident = resident(&server)? / MB;
        let [first_50, first_99, turns] = turns(&api, &deployment_id, scale).await?;
        let round = [
            started,
            resident,
            first_50,
            first_99,
            turns,
            median(scale, async || api.create().await.map(drop)).await?,
            median(scale, async || api.create_thread(&deployment_id).await.map(drop)).await?,
            median(scale, async || api.get(&many.list(&deployment_id)).await.map(drop)).await?,
            resume(&api, &deployment_id, scale).await?,
        ];
        for (values, value) in figures.iter_mut().zip(round) {
            values.push(value);
        }
        stop(server).await?;
    }
    Ok(figures)
}

fn resident(server: &Server) -> anyhow::Result<f64> {
    resident_bytes(anyhow::Context::context(server.pid(), "the server has ended")?)
}

impl Many {
    fn name(self) -> &'static str {
        match self {
            Self::Deployments => "deployments",
            Self::Threads => "threads in one deployment",
            Self::Events => "past events in one deployment",
        }
    }

    /// The list whose newest entries are asked for.
    fn list(self, deployment_id: &str) -> String {
        match self {
            Self::Deployments => "/v1/deployments".to_owned(),
            Self::Threads => format!("/v1/deployments/{deployment_id}/threads"),
            Self::Events => format!("/v1/deployments/{deployment_id}/events"),
        }
    }

    async fn fill(self, api: &Api, deployment_id: &str, size: usize) -> anyhow::Result<()> {
        let clients = (0..CLIENTS).map(|client| async move {
            // The remainder falls to the first ones.
            let own = size / CLIENTS + usize::from(client < size % CLIENTS);
            match self {
                Self::Deployments => api.create_many(own).await.map(drop)?,
                Self::Threads => {
                    for _ in 0..own {
                        api.create_thread(deployment_id).await?;
                    }
                }
                Self::Events => run_until(api, deployment_id, size as u64).await?,
            }
            anyhow::Ok(())
        });
        try_join_all(clients).await.map(drop)
    }
}

/// Runs in threads of their own, until the deployment has so many events.
async fn run_until(api: &Api, deployment_id: &str, events: u64) -> anyhow::Result<()> {
    let mut last = 0;
    while last < events {
        let thread_id = api.send(deployment_id, "new", "hello").await?;
        let mut frames =
            api.stream(deployment_id, &format!("?thread_id={thread_id}&after=evt_{last}")).await?;
        frames.until_completed().await?;
        last = frames.last_number()?;
    }
    Ok(())
}

/// First token p50 and p99 of one thread, and turns a second of many.
async fn turns(api: &Api, deployment_id: &str, scale: Scale) -> anyhow::Result<[f64; 3]> {
    let window = if scale.quick { std::time::Duration::ZERO } else { WINDOW };
    let talk = Talk::herm_begin(api, deployment_id).await?;
    let (_, alone) = drive(vec![talk], window).await?;
    let crowd = (0..scale.of(CROWD, 2)).map(|_| Talk::herm_begin(api, deployment_id));
    let (_, crowded) = drive(try_join_all(crowd).await?, window).await?;
    Ok([alone.first_token_ms.median(), alone.first_token_ms.percentile(99), crowded.turns_per_s])
}

/// From asking for a stream after the last event but one to that event.
async fn resume(api: &Api, deployment_id: &str, scale: Scale) -> anyhow::Result<f64> {
    let mut frames = api.stream(deployment_id, "").await?;
    api.send(deployment_id, "new", "hello").await?;
    frames.until_completed().await?;
    let query = format!("?after=evt_{}", frames.last_number()?.saturating_sub(1));
    median(scale, async || {
        let mut frames = api.stream(deployment_id, &query).await?;
        frames.next().await.map(drop)
    })
    .await
}

/// How long it takes at the median, in milliseconds.
async fn median(scale: Scale, act: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut taken = Vec::new();
    for _ in 0..scale.of(100, 2) {
        let begun = Instant::now();
        act().await?;
        taken.push(ms(begun.elapsed()));
    }
    Ok(Samples::new(taken)?.median())
}

fn table(many: Many, columns: &[Figures]) -> anyhow::Result<String> {
    let mut text = format!("| {} | 10 | 1,000 | 100,000 |\n|---|---|---|---|\n", many.name());
    for (number, (what, unit)) in WHAT.iter().enumerate() {
        let mut cells = Vec::new();
        for column in columns {
            let values = Samples::new(column.get(number).cloned().unwrap_or_default())?;
            cells.push(format!("{} {unit}", spread(&values)));
        }
        text.push_str(&format!("| {what} | {} |\n", cells.join(" | ")));
    }
    text.push('\n');
    Ok(text)
}
