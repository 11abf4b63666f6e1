//! What sandboxes run on, as far as it is known at this moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use herm_sandbox::Sandboxes;
use herm_types::sandbox::{SandboxSettings, SandboxType};
use herm_types::{Clock, ErrorCode, Timestamp};

/// What was learnt of an engine is believed for so long, in microseconds.
const FRESH_US: i64 = 10_000_000;

/// Whether an engine answers; the error says why not, and what to do.
#[async_trait]
pub trait Engines: Send + Sync {
    async fn check(&self, engine: SandboxType) -> Result<(), String>;
}

#[async_trait]
impl Engines for Sandboxes {
    async fn check(&self, engine: SandboxType) -> Result<(), String> {
        Sandboxes::check(self, engine).await.map_err(|error| error.to_string())
    }
}

type Learnt = (Timestamp, Result<(), String>);

/// The engines, asked now and then.
#[derive(Clone)]
pub(crate) struct EngineWatch {
    engines: Arc<dyn Engines>,
    clock: Arc<dyn Clock>,
    learnt: Arc<Mutex<HashMap<SandboxType, Learnt>>>,
}

impl EngineWatch {
    pub(crate) fn new(engines: Arc<dyn Engines>, clock: Arc<dyn Clock>) -> Self {
        Self { engines, clock, learnt: Arc::default() }
    }

    async fn check(&self, engine: SandboxType) -> Result<(), String> {
        let now = self.clock.now();
        let known = self.learnt.lock().unwrap_or_else(PoisonError::into_inner).get(&engine).cloned();
        if let Some((at, learnt)) = known
            && now.as_micros() - at.as_micros() < FRESH_US
        {
            return learnt;
        }
        let learnt = self.engines.check(engine).await;
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner).insert(engine, (now, learnt.clone()));
        learnt
    }
}

/// The engine for a sandbox of this type: itself, or what the operator lets take its place.
pub(crate) async fn choose(
    watch: &EngineWatch,
    kind: SandboxType,
    docker_becomes: Option<SandboxType>,
) -> Result<SandboxType, herm_types::Error> {
    let missing = match kind {
        // What is wrong with it is said by the command that needs it: nothing takes its place.
        SandboxType::Local => return Ok(SandboxType::Local),
        SandboxType::Docker | SandboxType::Gvisor => match watch.check(kind).await {
            Ok(()) => return Ok(kind),
            Err(missing) => missing,
        },
    };
    let instead = docker_becomes.filter(|_| kind == SandboxType::Docker);
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
