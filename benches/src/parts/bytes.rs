//! Measures the disk space that conversations take, relative to the size of their text.

use std::time::Duration;

use herm_testkit::model_server::{Gate, Reply};

use super::{Mode, Part};
use crate::conversation::Conversation;
use crate::report::{Row, Target};
use crate::setup::{ServerSetup, stop};

/// The size of each user message and of each reply, in bytes.
const MESSAGE_BYTES: usize = 512;
const TURNS: usize = 100;
/// The size of each delta of a streamed reply, in bytes. Together with [`PIECE_INTERVAL`], it imitates a model that
/// produces about 90 tokens per second.
const PIECE_BYTES: usize = 16;
const PIECE_INTERVAL: Duration = Duration::from_millis(45);
/// The number of threads (conversations) whose replies stream concurrently. A single thread would need minutes to
/// produce the same amount of data.
const STREAMING_THREADS: usize = 20;

pub(super) async fn measure(mode: Mode) -> anyhow::Result<Vec<Row>> {
    let (mut at_once, mut streamed) = (Vec::new(), Vec::new());
    for _ in 0..mode.count(3, 1) {
        let whole = text(MESSAGE_BYTES);
        at_once.push(ratio(1, mode.count(TURNS, 2), move || Reply::text(whole.clone())).await?);
        let threads = mode.count(STREAMING_THREADS, 2);
        streamed.push(ratio(threads, mode.count(TURNS, 2) / threads, paced).await?);
    }
    let note = "100 turns with 512 bytes from each side; the model's text arrives in one piece";
    let streamed_note = "the same text, streamed as 16 bytes every 45 ms: 32 token events per reply";
    Ok(vec![
        Part::Bytes.row("bytes stored per byte of text", Target::Below(8.0), "×", at_once, note)?,
        Part::Bytes.row("the same, at a real model's pace", Target::None, "×", streamed, streamed_note)?,
    ])
}

/// Completes `turns` turns in each thread. Returns the growth of the database divided by the total size of the
/// messages' text.
async fn ratio(
    threads: usize,
    turns: usize,
    reply: impl Fn() -> Reply + Send + Sync + 'static,
) -> anyhow::Result<f64> {
    let setup = ServerSetup::new().await?;
    setup.respond_with(move |_| reply());
    let (server, api) = setup.start().await?;
    let deployments = vec![api.create().await?; threads];
    stop(server).await?;
    let empty = setup.database_bytes()?;
    let (server, api) = setup.start().await?;
    let content = text(MESSAGE_BYTES);
    let conversations = deployments.iter().map(|deployment_id| async {
        let mut conversation = Conversation::begin(&api, deployment_id, &content).await?;
        for _ in 1..turns {
            conversation.turn(&content).await?;
        }
        anyhow::Ok(())
    });
    futures_util::future::try_join_all(conversations).await?;
    stop(server).await?;
    let added = setup.database_bytes()?.saturating_sub(empty);
    Ok(added as f64 / (threads * turns * 2 * MESSAGE_BYTES) as f64)
}

/// Creates a reply that is streamed at the speed of a real model.
fn paced() -> Reply {
    let content = text(MESSAGE_BYTES);
    let mut reply = Reply::new();
    let mut gates = Vec::new();
    let mut rest = content.as_str();
    while !rest.is_empty() {
        let (piece, remaining) = rest.split_at(rest.len().min(PIECE_BYTES));
        let gate = Gate::new();
        reply = reply.gate(&gate).then_text(piece);
        gates.push(gate);
        rest = remaining;
    }
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(PIECE_INTERVAL);
        for gate in gates {
            interval.tick().await;
            gate.open();
        }
    });
    reply
}

/// Returns a text of this size.
fn text(bytes: usize) -> String {
    "The quick brown fox jumps over the lazy dog. ".chars().cycle().take(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_the_requested_length() {
        assert_eq!(text(MESSAGE_BYTES).len(), MESSAGE_BYTES);
    }
}
