//! A thread with its stream: one message after the other.

use anyhow::Context as _;
use futures_util::future::try_join_all;

use crate::api::Api;
use crate::frames::Frames;

pub(crate) struct Conversation {
    api: Api,
    deployment_id: String,
    thread_id: String,
    frames: Frames,
}

impl Conversation {
    /// Begins a thread, and waits for its first run to complete: the sandbox of its deployment has been asked for
    /// then, and the paths are warm.
    pub(crate) async fn begin(api: &Api, deployment_id: &str, content: &str) -> anyhow::Result<Self> {
        let thread_id = api.send(deployment_id, "new", content).await?;
        let query = format!("?thread_id={thread_id}&after=evt_0");
        let mut frames = api.stream(deployment_id, &query).await?;
        frames.until_completed().await?;
        Ok(Self { api: api.clone(), deployment_id: deployment_id.to_owned(), thread_id, frames })
    }

    /// One conversation on each of these deployments, which may be one several times.
    pub(crate) async fn begin_all(api: &Api, deployments: &[String]) -> anyhow::Result<Vec<Self>> {
        try_join_all(deployments.iter().map(|deployment_id| Self::begin(api, deployment_id, "hello"))).await
    }

    /// Sends a message and waits until its run has completed.
    pub(crate) async fn turn(&mut self, content: &str) -> anyhow::Result<()> {
        self.api.send(&self.deployment_id, &self.thread_id, content).await?;
        self.frames.until_completed().await
    }
}

/// Has all conversations take so many turns, side by side.
pub(crate) async fn take_turns(conversations: Vec<Conversation>, turns: usize) -> anyhow::Result<()> {
    let tasks: Vec<_> = conversations
        .into_iter()
        .map(|mut conversation| {
            tokio::spawn(async move {
                for _ in 0..turns {
                    conversation.turn("hello").await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await.context("a conversation panicked")??;
    }
    Ok(())
}
