//! A conversation in one thread on a Herm server. Each message starts a run of the agent, and the next message is sent
//! only after that run has completed.

use anyhow::Context as _;
use futures_util::future::try_join_all;

use crate::api::Api;
use crate::event_stream::EventStream;

pub(crate) struct Conversation {
    api: Api,
    deployment_id: String,
    thread_id: String,
    stream: EventStream,
}

impl Conversation {
    /// Creates a thread by sending `content`, and waits until the run has completed. This run starts the
    /// deployment's sandbox and fills caches. It is not measured, because later runs do not repeat that work.
    pub(crate) async fn begin(api: &Api, deployment_id: &str, content: &str) -> anyhow::Result<Self> {
        let thread_id = api.send(deployment_id, "new", content).await?;
        let query = format!("?thread_id={thread_id}&after=evt_0");
        let mut stream = api.stream(deployment_id, &query).await?;
        stream.wait_for_completion().await?;
        Ok(Self { api: api.clone(), deployment_id: deployment_id.to_owned(), thread_id, stream })
    }

    /// Begins one conversation for each id in `deployments`. The list can contain the same deployment several times.
    pub(crate) async fn begin_all(api: &Api, deployments: &[String]) -> anyhow::Result<Vec<Self>> {
        try_join_all(deployments.iter().map(|deployment_id| Self::begin(api, deployment_id, "hello"))).await
    }

    /// Sends a message and waits until the run has completed.
    pub(crate) async fn turn(&mut self, content: &str) -> anyhow::Result<()> {
        self.api.send(&self.deployment_id, &self.thread_id, content).await?;
        self.stream.wait_for_completion().await
    }
}

/// Runs all conversations concurrently, with `turns` turns each.
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
