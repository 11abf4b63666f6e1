//! What is measured side by side: Herm, and servers for agents that others make.
//!
//! Each is started with the same scripted model and driven through its own HTTP API by the same client. An agent is
//! what each of them calls one, without tools; a thread is a conversation that the server itself remembers.

mod herm;
mod install;
mod peer;
mod talk;

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use herm_testkit::model_server::{ModelServer, Reply};

pub(crate) use self::install::Installed;
pub(crate) use self::peer::Peer;
pub(crate) use self::talk::Talk;

use self::herm::HermServer;
use self::peer::PeerServer;
use crate::bed::Bed;

/// Longest that a server may take to answer for the first time.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Between two looks whether it answers.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Something to start, with a state of its own that outlives its processes.
pub(crate) enum Subject {
    Herm(Bed),
    Peer { installed: Installed, model: ModelServer, state: tempfile::TempDir },
}

/// One that was started. Dropped, it is killed.
pub(crate) enum Running {
    Herm(HermServer),
    Peer(PeerServer),
}

impl Subject {
    /// Herm, as it is by default.
    pub(crate) async fn herm() -> anyhow::Result<Self> {
        Ok(Self::Herm(Bed::new().await?))
    }

    pub(crate) async fn peer(installed: &Installed) -> anyhow::Result<Self> {
        let model = ModelServer::start().await;
        model.record(false);
        model.respond_with(|_| Reply::text("ok"));
        Ok(Self::Peer { installed: installed.clone(), model, state: crate::bed::fresh_dir()? })
    }

    /// Starts it, and waits until it answers; says how long that took.
    pub(crate) async fn start(&self) -> anyhow::Result<(Running, Duration)> {
        let begun = Instant::now();
        let running = match self {
            Self::Herm(bed) => Running::Herm(HermServer::start(bed).await?),
            Self::Peer { installed, model, state } => {
                Running::Peer(PeerServer::start(installed, &model.openai_base_url(), state.path())?)
            }
        };
        let ready = async {
            while !running.is_ready().await {
                running.refuse_end()?;
                tokio::time::sleep(LOOK_EVERY).await;
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(START_LIMIT, ready).await {
            Ok(ready) => ready?,
            Err(_) => bail!("it did not answer within {} s: {}", START_LIMIT.as_secs(), running.said()),
        }
        Ok((running, begun.elapsed()))
    }
}

impl Running {
    async fn is_ready(&self) -> bool {
        match self {
            Self::Herm(herm) => herm.api.is_ready().await,
            Self::Peer(peer) => peer.is_ready().await,
        }
    }

    fn refuse_end(&self) -> anyhow::Result<()> {
        match self {
            Self::Peer(peer) if peer.has_ended() => bail!("it ended at once: {}", peer.said()),
            Self::Herm(_) | Self::Peer(_) => Ok(()),
        }
    }

    fn said(&self) -> String {
        match self {
            Self::Herm(herm) => herm.server.log(),
            Self::Peer(peer) => peer.said(),
        }
    }

    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        let pid = match self {
            Self::Herm(herm) => herm.server.pid(),
            Self::Peer(peer) => Some(peer.pid()),
        };
        pid.context("the server has ended")
    }

    /// Makes an agent, where that is something the API can do; else gives the one there is.
    pub(crate) async fn create_agent(&self) -> anyhow::Result<String> {
        match self {
            Self::Herm(herm) => herm.api.create().await,
            Self::Peer(peer) => peer.create_agent().await,
        }
    }

    pub(crate) async fn create_thread(&self, agent: &str) -> anyhow::Result<String> {
        match self {
            Self::Herm(herm) => herm.api.create_thread(agent).await,
            Self::Peer(peer) => peer.create_thread(agent).await,
        }
    }

    /// A conversation on a fresh thread of this agent, with its first turn taken.
    pub(crate) async fn begin(&self, agent: &str) -> anyhow::Result<Talk> {
        match self {
            Self::Herm(herm) => Talk::herm_begin(&herm.api, agent).await,
            Self::Peer(peer) => {
                let mut talk = Talk::peer(peer.client(), agent, self.create_thread(agent).await?);
                talk.turn("hello").await?;
                Ok(talk)
            }
        }
    }

    /// Whether a thread's history, as the API gives it, holds this text.
    pub(crate) async fn remembers(&self, agent: &str, thread: &str, text: &str) -> anyhow::Result<bool> {
        let history = match self {
            Self::Herm(herm) => herm.api.get(&format!("/v1/deployments/{agent}/threads/{thread}")).await.ok(),
            Self::Peer(peer) => peer.client().history(thread).await?,
        };
        Ok(history.is_some_and(|history| history.contains(text)))
    }

    /// Ends it as `kill -9` does.
    pub(crate) async fn kill(self) -> anyhow::Result<()> {
        match self {
            Self::Herm(herm) => drop(herm.server.kill().await?),
            Self::Peer(peer) => peer.kill().await?,
        }
        Ok(())
    }
}
