//! A conversation with one of the compared servers.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::peer::Client;
use crate::api::Api;
use crate::event_stream::EventStream;

/// The maximum duration of a turn. If it takes longer, the turn fails.
const TURN_LIMIT: Duration = Duration::from_secs(180);

/// A conversation in one thread of an agent, and the connection to the agent's server.
pub(crate) struct Chat {
    pub(crate) agent: String,
    pub(crate) thread: String,
    transport: Transport,
}

enum Transport {
    /// Each message is a separate request, and one stream that stays open receives all replies.
    Herm { api: Api, stream: EventStream },
    /// Each message is a separate request, and the response to that request streams the reply.
    Peer(Client),
}

impl Chat {
    pub(super) async fn herm(api: &Api, agent: &str, thread: String) -> anyhow::Result<Self> {
        let stream = api.stream(agent, &format!("?thread_id={thread}")).await?;
        let transport = Transport::Herm { api: api.clone(), stream };
        Ok(Self { agent: agent.to_owned(), thread, transport })
    }

    /// Creates a thread in a Herm deployment and completes the first turn.
    pub(crate) async fn begin_herm(api: &Api, deployment_id: &str) -> anyhow::Result<Self> {
        let mut chat = Self::herm(api, deployment_id, api.create_thread(deployment_id).await?).await?;
        chat.turn("hello").await?;
        Ok(chat)
    }

    pub(super) fn peer(client: Client, agent: &str, thread: String) -> Self {
        Self { agent: agent.to_owned(), thread, transport: Transport::Peer(client) }
    }

    /// Completes a turn. Returns the time from sending the message to receiving the first token of the reply.
    pub(crate) async fn turn(&mut self, content: &str) -> anyhow::Result<Duration> {
        let turn = async {
            match &mut self.transport {
                Transport::Herm { api, stream } => {
                    herm_turn(api, stream, &self.agent, &self.thread, content).await
                }
                Transport::Peer(client) => peer_turn(client, &self.agent, &self.thread, content).await,
            }
        };
        let limit = TURN_LIMIT.as_secs();
        tokio::time::timeout(TURN_LIMIT, turn)
            .await
            .with_context(|| format!("the turn took more than {limit} s"))?
    }
}

async fn herm_turn(
    api: &Api,
    stream: &mut EventStream,
    agent: &str,
    thread: &str,
    content: &str,
) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let token = async {
        stream.wait_for("token").await?;
        anyhow::Ok(started.elapsed())
    };
    let (_, first) = tokio::try_join!(api.send(agent, thread, content), token)?;
    stream.wait_for_completion().await?;
    Ok(first)
}

async fn peer_turn(client: &Client, agent: &str, thread: &str, content: &str) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let mut response = client.send(agent, thread, content).await?;
    let (mut received, mut first) = (Vec::new(), None);
    let contains =
        |bytes: &[u8], marker: &str| bytes.windows(marker.len()).any(|window| window == marker.as_bytes());
    while let Some(chunk) = response.chunk().await.context("the response stream of the peer broke off")? {
        received.extend_from_slice(&chunk);
        if first.is_none() && contains(&received, client.first_token_marker()) {
            first = Some(started.elapsed());
        }
    }
    let text = || String::from_utf8_lossy(&received).into_owned();
    ensure!(
        client.completion_marker().is_none_or(|marker| contains(&received, marker)),
        "the turn did not complete: {}",
        text()
    );
    first.with_context(|| format!("the reply of the turn has no text: {}", text()))
}
