//! What every use case stands on.

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
use crate::engines::{self, EngineWatch, Engines};
use crate::key_watch::KeyWatch;

/// What an operator decided that use cases follow.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The model of deployments that name none.
    pub default_model: ModelName,
    /// The providers whose models may be named, with or without a key.
    pub providers: Vec<String>,
    /// What `docker` becomes while no Docker engine answers; `None`: it is refused.
    pub docker_becomes: Option<SandboxType>,
    pub workspaces: Workspaces,
    /// Where deleted deployments' files are kept.
    pub snapshots: Snapshots,
    /// What of workspaces is used.
    pub quotas: Quotas,
    /// Bytes of a file that is written through the API, at most.
    pub max_file_bytes: u64,
}

/// The use cases' common ground; cheap to clone.
#[derive(Clone)]
pub struct App {
    pub(crate) store: Store,
    pub(crate) ids: IdSource,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) sealer: Sealer,
    pub(crate) fetcher: Fetcher,
    pub(crate) key_watch: KeyWatch,
    engines: EngineWatch,
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
        let engines = EngineWatch::new(engines, Arc::clone(&clock));
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

    /// The engine for a sandbox: the one that it has, else one for its type.
    pub(crate) async fn choose_engine(&self, sandbox: &SandboxSettings) -> Result<SandboxType, Error> {
        match sandbox.engine {
            Some(engine) => Ok(engine),
            None => engines::choose(&self.engines, sandbox, self.settings.docker_becomes).await,
        }
    }

    /// Whether a sandbox needs an image that its engine has not, as far as the engine says.
    pub(crate) async fn lacks_image(&self, sandbox: &SandboxSettings) -> bool {
        match sandbox.engine.filter(|_| sandbox.enabled) {
            Some(engine) => self.engines.look(engine, sandbox.image.as_deref()).await != Ok(true),
            None => false,
        }
    }

    /// Whether a sandbox has a user of its own to the host's kernel; `None` if there is no sandbox.
    pub(crate) async fn own_user(&self, sandbox: &SandboxSettings) -> Option<bool> {
        match sandbox.engine.filter(|_| sandbox.enabled) {
            Some(engine) => Some(self.engines.have_users(engine).await),
            None => None,
        }
    }

    /// Whether the database answers.
    pub async fn is_ready(&self) -> bool {
        let read = self.store.read("readiness", |tx| Box::pin(herm_store::queue::len(tx)));
        read.await.is_ok() && !self.draining.is_cancelled()
    }

    /// From now on new work is refused and streams end: the server is about to stop.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Is cancelled when the server begins to drain.
    pub fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    pub(crate) fn refuse_while_draining(&self) -> Result<(), Error> {
        if self.draining.is_cancelled() {
            return Err(Error::new(
                ErrorCode::Unavailable,
                "The server is stopping; send the request again.",
            ));
        }
        Ok(())
    }

    /// Where the files are that all of the deployment's threads share, its skills among them.
    pub fn workspace_dir(&self, deployment_id: DeploymentId) -> PathBuf {
        self.settings.workspaces.dir_of(WorkspaceId::Deployment(deployment_id))
    }
}
