//! What a conversation takes on disk, relative to its text.

use std::time::Duration;

use herm_testkit::model_server::{Gate, Reply};

use super::{Part, Scale};
use crate::bed::{Bed, stop};
use crate::conversation::Conversation;
use crate::report::{Bar, Row};

/// What each side says in a turn.
const SAID_BYTES: usize = 512;
const TURNS: usize = 100;
/// A streaming model: so much text, so often. About 90 tokens a second.
const PIECE_BYTES: usize = 16;
const PIECE_EVERY: Duration = Duration::from_millis(45);
/// Threads that stream side by side, so that it takes seconds and not minutes.
const STREAMING_THREADS: usize = 20;

pub(super) async fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let (mut at_once, mut streamed) = (Vec::new(), Vec::new());
    for _ in 0..scale.of(3, 1) {
        let all = text(SAID_BYTES);
        at_once.push(ratio(1, scale.of(TURNS, 2), move || Reply::text(all.clone())).await?);
        let threads = scale.of(STREAMING_THREADS, 2);
        streamed.push(ratio(threads, scale.of(TURNS, 2) / threads, paced).await?);
    }
    let note = "100 turns of 512 bytes from each side; the model's text comes in one piece";
    let streamed_note = "the same text, streamed as 16 bytes every 45 ms: 32 token events a reply";
    Ok(vec![
        Part::Bytes.row("bytes stored for each byte of text", Bar::Below(8.0), "×", at_once, note)?,
        Part::Bytes.row("the same, at a real model's pace", Bar::None, "×", streamed, streamed_note)?,
    ])
}

/// The bytes that so many turns on each of so many threads add to an empty database, over those of their text.
async fn ratio(
    threads: usize,
    turns: usize,
    reply: impl Fn() -> Reply + Send + Sync + 'static,
) -> anyhow::Result<f64> {
    let bed = Bed::new().await?;
    bed.respond_with(move |_| reply());
    let (server, api) = bed.start().await?;
    let deployments = vec![api.create().await?; threads];
    stop(server).await?;
    let empty = bed.database_bytes()?;
    let (server, api) = bed.start().await?;
    let said = text(SAID_BYTES);
    let talk = deployments.iter().map(|deployment_id| async {
        let mut conversation = Conversation::begin(&api, deployment_id, &said).await?;
        for _ in 1..turns {
            conversation.turn(&said).await?;
        }
        anyhow::Ok(())
    });
    futures_util::future::try_join_all(talk).await?;
    stop(server).await?;
    let added = bed.database_bytes()?.saturating_sub(empty);
    Ok(added as f64 / (threads * turns * 2 * SAID_BYTES) as f64)
}

/// A reply that comes at a real model's pace.
fn paced() -> Reply {
    let said = text(SAID_BYTES);
    let mut reply = Reply::new();
    let mut gates = Vec::new();
    let mut rest = said.as_str();
    while !rest.is_empty() {
        let (piece, left) = rest.split_at(rest.len().min(PIECE_BYTES));
        let gate = Gate::new();
        reply = reply.gate(&gate).then_text(piece);
        gates.push(gate);
        rest = left;
    }
    tokio::spawn(async move {
        let mut clock = tokio::time::interval(PIECE_EVERY);
        for gate in gates {
            clock.tick().await;
            gate.open();
        }
    });
    reply
}

/// So many bytes of text.
fn text(bytes: usize) -> String {
    "The quick brown fox jumps over the lazy dog. ".chars().cycle().take(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_as_long_as_it_is_to_be() {
        assert_eq!(text(SAID_BYTES).len(), SAID_BYTES);
    }
}
