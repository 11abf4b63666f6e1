//! Conversations side by side for a while: how soon replies begin, and how many turns there are.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::stats::Samples;
use crate::subject::Talk;

pub(crate) struct Driven {
    /// From sending a message to the first piece of its reply, in milliseconds.
    pub(crate) first_token_ms: Samples,
    pub(crate) turns_per_s: f64,
}

/// Has all conversations take turns, each at least one; none is begun when the time is over.
pub(crate) async fn drive(talks: Vec<Talk>, window: Duration) -> anyhow::Result<(Vec<Talk>, Driven)> {
    let begun = Instant::now();
    let tasks: Vec<_> = talks.into_iter().map(|talk| tokio::spawn(take_turns(talk, begun, window))).collect();
    let (mut talks, mut all) = (Vec::new(), Vec::new());
    for task in tasks {
        let (talk, taken) = task.await.context("a conversation panicked")??;
        talks.push(talk);
        all.extend(taken);
    }
    let turns_per_s = all.len() as f64 / begun.elapsed().as_secs_f64();
    Ok((talks, Driven { first_token_ms: Samples::new(all)?, turns_per_s }))
}

async fn take_turns(mut talk: Talk, begun: Instant, window: Duration) -> anyhow::Result<(Talk, Vec<f64>)> {
    let mut taken = Vec::new();
    while taken.is_empty() || begun.elapsed() < window {
        taken.push(talk.turn("hello").await?.as_secs_f64() * 1000.0);
    }
    Ok((talk, taken))
}
