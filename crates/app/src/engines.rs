//! The sandbox engines, and the selection of an engine for a sandbox.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use herm_sandbox::Sandboxes;
use herm_types::sandbox::{SandboxSettings, SandboxType};
use herm_types::{Clock, ErrorCode, Timestamp};

/// The time for which the result of an engine probe is reused, in microseconds.
const CACHE_TTL_US: i64 = 10_000_000;

/// The sandbox engines of this machine. Tests use an implementation without real engines.
#[async_trait]
pub trait Engines: Send + Sync {
    /// Returns true if the engine already has the image. If `image` is `None`, checks the image in the
    /// server's configuration. If the engine does not answer, fails with a message that explains the cause
    /// and the remedy.
    async fn probe(&self, engine: SandboxType, image: Option<&str>) -> Result<bool, String>;

    /// Returns true if the engine runs the sandbox of each workspace as a separate operating system user.
    async fn has_own_users(&self, engine: SandboxType) -> bool;
}

#[async_trait]
impl Engines for Sandboxes {
    async fn probe(&self, engine: SandboxType, image: Option<&str>) -> Result<bool, String> {
        self.check(engine).await.map_err(|error| error.to_string())?;
        self.has_image(engine, image).await.map_err(|error| error.to_string())
    }

    async fn has_own_users(&self, engine: SandboxType) -> bool {
        Sandboxes::have_own_users(self, engine).await
    }
}

type CachedProbe = (Timestamp, Result<bool, String>);

/// The sandbox engines of this machine, with a cache of recent probes.
#[derive(Clone)]
pub(crate) struct EngineCache {
    engines: Arc<dyn Engines>,
    clock: Arc<dyn Clock>,
    /// The latest probe of each engine for the image in the server's configuration. Probes for other images
    /// are not cached, because the number of images is unbounded.
    probes: Arc<Mutex<HashMap<SandboxType, CachedProbe>>>,
}

impl EngineCache {
    pub(crate) fn new(engines: Arc<dyn Engines>, clock: Arc<dyn Clock>) -> Self {
        Self { engines, clock, probes: Arc::default() }
    }

    /// Like [`Engines::probe`], but uses the cache. Always returns true for `local`, without a probe: if that
    /// engine does not work, the first command fails with the reason.
    pub(crate) async fn probe(&self, engine: SandboxType, image: Option<&str>) -> Result<bool, String> {
        if engine == SandboxType::Local {
            return Ok(true);
        }
        if image.is_some() {
            return self.engines.probe(engine, image).await;
        }
        let now = self.clock.now();
        let cached = self.probes.lock().unwrap_or_else(PoisonError::into_inner).get(&engine).cloned();
        if let Some((at, result)) = cached
            && now.as_micros() - at.as_micros() < CACHE_TTL_US
        {
            return result;
        }
        let result = self.engines.probe(engine, None).await;
        self.probes.lock().unwrap_or_else(PoisonError::into_inner).insert(engine, (now, result.clone()));
        result
    }

    pub(crate) async fn has_own_users(&self, engine: SandboxType) -> bool {
        self.engines.has_own_users(engine).await
    }
}

/// Selects the engine for a sandbox. `docker` is replaced by `docker_fallback` if the Docker engine does not
/// answer, or if it lacks the image in the server's configuration. If the deployment specifies an image, a
/// missing image is no reason to replace the engine, because provisioning pulls it.
pub(crate) async fn choose(
    cache: &EngineCache,
    sandbox: &SandboxSettings,
    docker_fallback: Option<SandboxType>,
) -> Result<SandboxType, herm_types::Error> {
    let kind = sandbox.kind;
    let fallback = docker_fallback.filter(|_| kind == SandboxType::Docker);
    let error = match cache.probe(kind, sandbox.image.as_deref()).await {
        Ok(false) if sandbox.image.is_none() => return Ok(fallback.unwrap_or(kind)),
        Ok(_) => return Ok(kind),
        Err(error) => error,
    };
    fallback.ok_or_else(|| {
        let alternative = match kind {
            SandboxType::Docker => {
                "set `sandbox.type` to `local` in the request, or `HERM_SANDBOX=local` on the server"
            }
            _ => "set `sandbox.type` to another type",
        };
        let message = format!(
            "Sandboxes of type {} are not available: {error}. Make them available, or {alternative}.",
            kind.as_str()
        );
        herm_types::Error::new(ErrorCode::Unavailable, message)
    })
}

/// Assigns the selected engine to an enabled sandbox that has no engine. An engine that is already assigned
/// is never replaced. Fails if the sandbox needs an engine and `chosen` is an error.
pub(crate) fn assign_engine(
    sandbox: &mut SandboxSettings,
    chosen: &Result<SandboxType, herm_types::Error>,
) -> Result<(), herm_types::Error> {
    if sandbox.enabled && sandbox.engine.is_none() {
        sandbox.engine = Some(chosen.clone()?);
    }
    Ok(())
}
