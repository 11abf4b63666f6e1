//! The application state that all use cases share.

use std::path::PathBuf;
use std::sync::Arc;

use herm_outbound::Fetcher;
use herm_sandbox::snapshots::Snapshots;
use herm_sandbox::workspace::Quotas;
use herm_sandbox::{WorkspaceId, Workspaces};
use herm_store::Store;
use herm_types::model::ModelName;
use herm_types::sandbox::{SandboxSettings, SandboxType};
use herm_types::{Clock, DeploymentId, Error, ErrorCode, IdSource, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::Sealer;
use crate::engines::{self, EngineCache, Engines};
use crate::key_watch::KeyWatch;

/// The part of the server's configuration that use cases need.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The model for deployments that are created without specifying one.
    pub default_model: ModelName,
    /// The names of the model providers that deployments may use, including providers without an API key.
    pub providers: Vec<String>,
    /// The engine to use instead of `docker` if the Docker engine does not answer or lacks the image in the
    /// server's configuration. If `None`, no other engine is used, and requests that need Docker fail while
    /// the Docker engine does not answer.
    pub docker_fallback: Option<SandboxType>,
    pub workspaces: Workspaces,
    /// The storage of snapshot archives.
    pub snapshots: Snapshots,
    /// Tracks the size of each workspace and the space that is reserved for writes in progress.
    pub quotas: Quotas,
    /// The maximum size of a file that is written through the API, in bytes. Larger files are rejected.
    pub max_file_bytes: u64,
}

/// The state that all use cases share. Cheap to clone.
#[derive(Clone)]
pub struct App {
    pub(crate) store: Store,
    pub(crate) ids: IdSource,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) sealer: Sealer,
    pub(crate) fetcher: Fetcher,
    pub(crate) key_watch: KeyWatch,
    engines: EngineCache,
    draining: CancellationToken,
}

impl App {
    pub fn new(
        store: Store,
        ids: IdSource,
        clock: Arc<dyn Clock>,
        sealer: Sealer,
        fetcher: Fetcher,
        engines: Arc<dyn Engines>,
        settings: Settings,
    ) -> Self {
        let draining = CancellationToken::new();
        let key_watch = KeyWatch::new(store.clone(), Arc::clone(&clock));
        let engines = EngineCache::new(engines, Arc::clone(&clock));
        Self {
            store,
            ids,
            clock,
            settings: Arc::new(settings),
            sealer,
            fetcher,
            key_watch,
            engines,
            draining,
        }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn ids(&self) -> &IdSource {
        &self.ids
    }

    /// Returns the engine that is assigned to a sandbox. If none is assigned, selects one for the sandbox's
    /// type.
    pub(crate) async fn choose_engine(&self, sandbox: &SandboxSettings) -> Result<SandboxType, Error> {
        match sandbox.engine {
            Some(engine) => Ok(engine),
            None => engines::choose(&self.engines, sandbox, self.settings.docker_fallback).await,
        }
    }

    /// Returns true if the image must be pulled before the sandbox can start. Also returns true if the engine
    /// does not answer. Returns false if the sandbox is disabled or has no engine yet.
    pub(crate) async fn lacks_image(&self, sandbox: &SandboxSettings) -> bool {
        match sandbox.engine.filter(|_| sandbox.enabled) {
            Some(engine) => self.engines.probe(engine, sandbox.image.as_deref()).await != Ok(true),
            None => false,
        }
    }

    /// Returns `Some(true)` if each workspace's sandbox runs as a separate operating system user, and
    /// `Some(false)` if several sandboxes share one user. Returns `None` if the sandbox is disabled or has no
    /// engine yet.
    pub(crate) async fn own_user(&self, sandbox: &SandboxSettings) -> Option<bool> {
        match sandbox.engine.filter(|_| sandbox.enabled) {
            Some(engine) => Some(self.engines.has_own_users(engine).await),
            None => None,
        }
    }

    /// Returns true if the database answers and the server is not draining.
    pub async fn is_ready(&self) -> bool {
        let read = self.store.read("readiness", |tx| Box::pin(herm_store::queue::len(tx)));
        read.await.is_ok() && !self.draining.is_cancelled()
    }

    /// Starts draining, because the server is about to stop: new work is refused and event streams end.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Returns a token that is cancelled when the server starts to drain.
    pub fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    pub(crate) fn refuse_while_draining(&self) -> Result<(), Error> {
        if self.draining.is_cancelled() {
            return Err(Error::new(
                ErrorCode::Unavailable,
                "The server is shutting down; retry the request.",
            ));
        }
        Ok(())
    }

    /// Returns the workspace directory that the deployment's threads share. The directory also contains the
    /// files of the deployment's skills.
    pub fn workspace_dir(&self, deployment_id: DeploymentId) -> PathBuf {
        self.settings.workspaces.dir_of(WorkspaceId::Deployment(deployment_id))
    }
}
