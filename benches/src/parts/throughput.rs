//! Measures the number of runs that the server completes per second.

use std::time::Instant;

use super::{Mode, Part};
use crate::api::Api;
use crate::conversation::{Conversation, take_turns};
use crate::report::{Row, Target};
use crate::setup::{ServerSetup, wait_for_background_work};

/// The number of threads (conversations) in which runs are executed concurrently.
const THREADS: usize = 20;

pub(super) async fn measure(mode: Mode) -> anyhow::Result<Vec<Row>> {
    let setup = ServerSetup::new().await?;
    let (_server, api) = setup.start().await?;
    let threads = mode.count(THREADS, 3);
    let deployments = api.create_many(threads).await?;
    let one: Vec<String> = deployments.iter().take(1).cloned().collect();
    let repeated: Vec<String> = one.iter().cycle().take(threads).cloned().collect();
    let turns = mode.count(50, 2);
    let alone = rates(&api, &one, mode.count(200, 3), mode).await?;
    let apart = rates(&api, &deployments, turns, mode).await?;
    let together = rates(&api, &repeated, turns, mode).await?;
    let note = "50 messages to each thread";
    Ok(vec![
        Part::Throughput.row("runs, 1 thread", Target::Above(80.0), "/s", alone, "200 messages")?,
        Part::Throughput.row(
            "runs, 20 threads of 20 deployments",
            Target::Above(400.0),
            "/s",
            apart,
            note,
        )?,
        Part::Throughput.row(
            "runs, 20 threads of 1 deployment",
            Target::Above(250.0),
            "/s",
            together,
            note,
        )?,
    ])
}

/// Measures several times how many runs per second the server completes. Each measurement creates one thread for each
/// id in `deployments`, which can contain the same id several times.
async fn rates(api: &Api, deployments: &[String], turns: usize, mode: Mode) -> anyhow::Result<Vec<f64>> {
    let mut rates = Vec::new();
    for _ in 0..mode.count(5, 1) {
        let conversations = Conversation::begin_all(api, deployments).await?;
        wait_for_background_work().await;
        let started = Instant::now();
        take_turns(conversations, turns).await?;
        rates.push((deployments.len() * turns) as f64 / started.elapsed().as_secs_f64());
    }
    Ok(rates)
}
