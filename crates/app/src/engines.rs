//! What sandboxes run on, as far as it is known at this moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use herm_sandbox::Sandboxes;
use herm_types::sandbox::{SandboxSettings, SandboxType};
use herm_types::{Clock, ErrorCode, Timestamp};

/// What was learnt of an engine is believed for so long, in microseconds.
const FRESH_US: i64 = 10_000_000;

/// What is known of the machine's engines.
#[async_trait]
pub trait Engines: Send + Sync {
    /// Whether an engine that answers has this image, for `None` the one that the server is configured with; the error
    /// says why it does not answer, and what to do.
    async fn look(&self, engine: SandboxType, image: Option<&str>) -> Result<bool, String>;

    /// Whether each of its sandboxes has a user of its own to the host's kernel.
    async fn have_users(&self, engine: SandboxType) -> bool;
}

#[async_trait]
impl Engines for Sandboxes {
    async fn look(&self, engine: SandboxType, image: Option<&str>) -> Result<bool, String> {
        self.check(engine).await.map_err(|error| error.to_string())?;
        self.has_image(engine, image).await.map_err(|error| error.to_string())
    }

    async fn have_users(&self, engine: SandboxType) -> bool {
        Sandboxes::have_users(self, engine).await
    }
}

type Learnt = (Timestamp, Result<bool, String>);

/// The engines, asked now and then.
#[derive(Clone)]
pub(crate) struct EngineWatch {
    engines: Arc<dyn Engines>,
    clock: Arc<dyn Clock>,
    /// Of the image that the server is configured with alone: there may be any number of others.
    learnt: Arc<Mutex<HashMap<SandboxType, Learnt>>>,
}

impl EngineWatch {
    pub(crate) fn new(engines: Arc<dyn Engines>, clock: Arc<dyn Clock>) -> Self {
        Self { engines, clock, learnt: Arc::default() }
    }

    /// As [`Engines::look`]; what is wrong with `local` is said by the command that needs it.
    pub(crate) async fn look(&self, engine: SandboxType, image: Option<&str>) -> Result<bool, String> {
        if engine == SandboxType::Local {
            return Ok(true);
        }
        if image.is_some() {
            return self.engines.look(engine, image).await;
        }
        let now = self.clock.now();
        let known = self.learnt.lock().unwrap_or_else(PoisonError::into_inner).get(&engine).cloned();
        if let Some((at, learnt)) = known
            && now.as_micros() - at.as_micros() < FRESH_US
        {
            return learnt;
        }
        let learnt = self.engines.look(engine, None).await;
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner).insert(engine, (now, learnt.clone()));
        learnt
    }

    pub(crate) async fn have_users(&self, engine: SandboxType) -> bool {
        self.engines.have_users(engine).await
    }
}

/// The engine for a sandbox of this type: itself, or what the operator lets take its place where no engine answers, or
/// the image is not there that the server is configured with. One that the deployment names can be fetched.
pub(crate) async fn choose(
    watch: &EngineWatch,
    sandbox: &SandboxSettings,
    docker_becomes: Option<SandboxType>,
) -> Result<SandboxType, herm_types::Error> {
    let kind = sandbox.kind;
    let instead = docker_becomes.filter(|_| kind == SandboxType::Docker);
    let missing = match watch.look(kind, sandbox.image.as_deref()).await {
        Ok(false) if sandbox.image.is_none() => return Ok(instead.unwrap_or(kind)),
        Ok(_) => return Ok(kind),
        Err(missing) => missing,
    };
    instead.ok_or_else(|| {
        let way_out = match kind {
            SandboxType::Docker => "ask for sandbox.type local, or set HERM_SANDBOX=local on the server",
            _ => "ask for another sandbox.type",
        };
        let message =
            format!("No sandbox of type {} can be had here: {missing}; or {way_out}.", kind.as_str());
        herm_types::Error::new(ErrorCode::Unavailable, message)
    })
}

/// Gives a sandbox that has no engine and needs one the engine that was chosen. What was chosen before stays.
pub(crate) fn settle(
    sandbox: &mut SandboxSettings,
    chosen: &Result<SandboxType, herm_types::Error>,
) -> Result<(), herm_types::Error> {
    if sandbox.enabled && sandbox.engine.is_none() {
        sandbox.engine = Some(chosen.clone()?);
    }
    Ok(())
}
