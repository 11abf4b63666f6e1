//! A conversation, turn by turn, with whatever is compared.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::peer::Client;
use crate::api::Api;
use crate::frames::Frames;

/// Longest that a turn may take.
const TURN_LIMIT: Duration = Duration::from_secs(180);

pub(crate) struct Talk {
    pub(crate) agent: String,
    pub(crate) thread: String,
    line: Line,
}

enum Line {
    /// A stream that stays open, beside which messages are sent.
    Herm { api: Api, frames: Frames },
    /// Each message is answered by a stream of its own.
    Peer(Client),
}

impl Talk {
    pub(super) async fn herm(api: &Api, agent: &str, thread: String) -> anyhow::Result<Self> {
        let frames = api.stream(agent, &format!("?thread_id={thread}")).await?;
        let line = Line::Herm { api: api.clone(), frames };
        Ok(Self { agent: agent.to_owned(), thread, line })
    }

    /// A conversation on a fresh thread of a deployment of Herm, with its first turn taken.
    pub(crate) async fn herm_begin(api: &Api, deployment_id: &str) -> anyhow::Result<Self> {
        let mut talk = Self::herm(api, deployment_id, api.create_thread(deployment_id).await?).await?;
        talk.turn("hello").await?;
        Ok(talk)
    }

    pub(super) fn peer(client: Client, agent: &str, thread: String) -> Self {
        Self { agent: agent.to_owned(), thread, line: Line::Peer(client) }
    }

    /// Takes a turn to its end; gives the time from sending the message to the first piece of the reply.
    pub(crate) async fn turn(&mut self, content: &str) -> anyhow::Result<Duration> {
        let turn = async {
            match &mut self.line {
                Line::Herm { api, frames } => {
                    herm_turn(api, frames, &self.agent, &self.thread, content).await
                }
                Line::Peer(client) => peer_turn(client, &self.agent, &self.thread, content).await,
            }
        };
        let limit = TURN_LIMIT.as_secs();
        tokio::time::timeout(TURN_LIMIT, turn).await.with_context(|| format!("a turn took over {limit} s"))?
    }
}

async fn herm_turn(
    api: &Api,
    frames: &mut Frames,
    agent: &str,
    thread: &str,
    content: &str,
) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let token = async {
        frames.until("token").await?;
        anyhow::Ok(begun.elapsed())
    };
    let (_, first) = tokio::try_join!(api.send(agent, thread, content), token)?;
    frames.until_completed().await?;
    Ok(first)
}

async fn peer_turn(client: &Client, agent: &str, thread: &str, content: &str) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut response = client.send(agent, thread, content).await?;
    let (mut said, mut first) = (Vec::new(), None);
    let holds = |said: &[u8], mark: &str| said.windows(mark.len()).any(|part| part == mark.as_bytes());
    while let Some(chunk) = response.chunk().await.context("a peer's stream broke")? {
        said.extend_from_slice(&chunk);
        if first.is_none() && holds(&said, client.token_mark()) {
            first = Some(begun.elapsed());
        }
    }
    let text = || String::from_utf8_lossy(&said).into_owned();
    ensure!(client.end_mark().is_none_or(|mark| holds(&said, mark)), "a turn did not complete: {}", text());
    first.with_context(|| format!("a turn said nothing: {}", text()))
}
