//! Runs completed each second.

use std::time::Instant;

use super::{Part, Scale};
use crate::api::Api;
use crate::bed::{Bed, settle};
use crate::conversation::{Conversation, take_turns};
use crate::report::{Bar, Row};

/// Threads that are at work side by side.
const THREADS: usize = 20;

pub(super) async fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let bed = Bed::new().await?;
    let (_server, api) = bed.start().await?;
    let threads = scale.of(THREADS, 3);
    let many = api.create_many(threads).await?;
    let one: Vec<String> = many.iter().take(1).cloned().collect();
    let crowded: Vec<String> = one.iter().cycle().take(threads).cloned().collect();
    let turns = scale.of(50, 2);
    let alone = rates(&api, &one, scale.of(200, 3), scale).await?;
    let apart = rates(&api, &many, turns, scale).await?;
    let together = rates(&api, &crowded, turns, scale).await?;
    let note = "50 messages to each thread";
    Ok(vec![
        Part::Throughput.row("runs, 1 thread", Bar::Above(80.0), "/s", alone, "200 messages")?,
        Part::Throughput.row("runs, 20 threads of 20 deployments", Bar::Above(400.0), "/s", apart, note)?,
        Part::Throughput.row("runs, 20 threads of 1 deployment", Bar::Above(250.0), "/s", together, note)?,
    ])
}

/// Runs a second, with a thread on each of these deployments; each repetition with fresh threads.
async fn rates(api: &Api, deployments: &[String], turns: usize, scale: Scale) -> anyhow::Result<Vec<f64>> {
    let mut rates = Vec::new();
    for _ in 0..scale.of(5, 1) {
        let conversations = Conversation::begin_all(api, deployments).await?;
        settle().await;
        let begun = Instant::now();
        take_turns(conversations, turns).await?;
        rates.push((deployments.len() * turns) as f64 / begun.elapsed().as_secs_f64());
    }
    Ok(rates)
}
