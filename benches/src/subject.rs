//! The servers that are compared: Herm and other agent servers.
//!
//! The benchmark sends the same messages to each server through that server's own HTTP API. All servers use the same
//! kind of scripted model. An "agent" is whatever the server itself calls an agent; it is configured without tools. A
//! "thread" is a conversation that the server stores.

mod chat;
mod herm;
mod install;
mod peer;

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use herm_testkit::model_server::{ModelServer, Reply};

pub(crate) use self::chat::Chat;
pub(crate) use self::install::Installation;
pub(crate) use self::peer::Peer;

use self::herm::HermServer;
use self::peer::PeerServer;
use crate::setup::ServerSetup;

/// The maximum time from starting a server process until the server is ready. If it takes longer, the measurement
/// fails.
const START_LIMIT: Duration = Duration::from_secs(120);
/// The interval at which the benchmark checks whether a server is ready.
const READY_CHECK_INTERVAL: Duration = Duration::from_millis(2);

/// A server that takes part in the comparison. It can be started several times and retains its data in between.
pub(crate) enum Subject {
    Herm(ServerSetup),
    Peer { installation: Installation, model: ModelServer, state: tempfile::TempDir },
}

/// A running server. Dropping it kills the process.
pub(crate) enum Running {
    Herm(HermServer),
    Peer(PeerServer),
}

impl Subject {
    /// Creates a Herm server with default settings.
    pub(crate) async fn herm() -> anyhow::Result<Self> {
        Ok(Self::Herm(ServerSetup::new().await?))
    }

    pub(crate) async fn peer(installation: &Installation) -> anyhow::Result<Self> {
        let model = ModelServer::start().await;
        model.record(false);
        model.respond_with(|_| Reply::text("ok"));
        Ok(Self::Peer { installation: installation.clone(), model, state: crate::setup::fresh_dir()? })
    }

    /// Starts the server and waits until it is ready. Also returns how long that took.
    pub(crate) async fn start(&self) -> anyhow::Result<(Running, Duration)> {
        let started = Instant::now();
        let running = match self {
            Self::Herm(setup) => Running::Herm(HermServer::start(setup).await?),
            Self::Peer { installation, model, state } => {
                Running::Peer(PeerServer::start(installation, &model.openai_base_url(), state.path())?)
            }
        };
        let ready = async {
            while !running.is_ready().await {
                running.ensure_running()?;
                tokio::time::sleep(READY_CHECK_INTERVAL).await;
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(START_LIMIT, ready).await {
            Ok(ready) => ready?,
            Err(_) => bail!("the server was not ready after {} s: {}", START_LIMIT.as_secs(), running.log()),
        }
        Ok((running, started.elapsed()))
    }
}

impl Running {
    async fn is_ready(&self) -> bool {
        match self {
            Self::Herm(herm) => herm.api.is_ready().await,
            Self::Peer(peer) => peer.is_ready().await,
        }
    }

    fn ensure_running(&self) -> anyhow::Result<()> {
        match self {
            Self::Peer(peer) if peer.has_ended() => {
                bail!("the server exited during its start: {}", peer.log())
            }
            Self::Herm(_) | Self::Peer(_) => Ok(()),
        }
    }

    fn log(&self) -> String {
        match self {
            Self::Herm(herm) => herm.server.log(),
            Self::Peer(peer) => peer.log(),
        }
    }

    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        let pid = match self {
            Self::Herm(herm) => herm.server.pid(),
            Self::Peer(peer) => Some(peer.pid()),
        };
        pid.context("the server has exited")
    }

    /// Creates an agent and returns its id. If the server's API cannot create agents, returns the id of the existing
    /// agent.
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

    /// Creates a thread with this agent and completes the first turn.
    pub(crate) async fn begin_chat(&self, agent: &str) -> anyhow::Result<Chat> {
        match self {
            Self::Herm(herm) => Chat::begin_herm(&herm.api, agent).await,
            Self::Peer(peer) => {
                let mut chat = Chat::peer(peer.client(), agent, self.create_thread(agent).await?);
                chat.turn("hello").await?;
                Ok(chat)
            }
        }
    }

    /// Returns true if the history of a thread, read through the server's API, contains this text.
    pub(crate) async fn remembers(&self, agent: &str, thread: &str, text: &str) -> anyhow::Result<bool> {
        let history = match self {
            Self::Herm(herm) => herm.api.get(&format!("/v1/deployments/{agent}/threads/{thread}")).await.ok(),
            Self::Peer(peer) => peer.client().history(thread).await?,
        };
        Ok(history.is_some_and(|history| history.contains(text)))
    }

    /// Kills the server process with SIGKILL.
    pub(crate) async fn kill(self) -> anyhow::Result<()> {
        match self {
            Self::Herm(herm) => drop(herm.server.kill().await?),
            Self::Peer(peer) => peer.kill().await?,
        }
        Ok(())
    }
}
