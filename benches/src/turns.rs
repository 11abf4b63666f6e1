//! Measures the time to first token and the turns per second of concurrent conversations.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::stats::Samples;
use crate::subject::Chat;

/// The measurements of all turns in one time window.
pub(crate) struct TurnStats {
    /// The time from sending a message to receiving the first token of the reply, in milliseconds, for each turn.
    pub(crate) first_token_ms: Samples,
    pub(crate) turns_per_s: f64,
}

/// Runs all conversations concurrently. Each conversation completes at least one turn, and begins no further turn after
/// `window` has passed.
pub(crate) async fn measure_turns(
    chats: Vec<Chat>,
    window: Duration,
) -> anyhow::Result<(Vec<Chat>, TurnStats)> {
    let started = Instant::now();
    let tasks: Vec<_> =
        chats.into_iter().map(|chat| tokio::spawn(take_turns(chat, started, window))).collect();
    let (mut chats, mut all) = (Vec::new(), Vec::new());
    for task in tasks {
        let (chat, first_token_ms) = task.await.context("a conversation panicked")??;
        chats.push(chat);
        all.extend(first_token_ms);
    }
    let turns_per_s = all.len() as f64 / started.elapsed().as_secs_f64();
    Ok((chats, TurnStats { first_token_ms: Samples::new(all)?, turns_per_s }))
}

async fn take_turns(mut chat: Chat, started: Instant, window: Duration) -> anyhow::Result<(Chat, Vec<f64>)> {
    let mut first_token_ms = Vec::new();
    while first_token_ms.is_empty() || started.elapsed() < window {
        first_token_ms.push(chat.turn("hello").await?.as_secs_f64() * 1000.0);
    }
    Ok((chat, first_token_ms))
}
