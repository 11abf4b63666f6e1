//! A server to be measured: its directory, its model, its key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use herm_crypto::{ApiKey, KeyKind};
use herm_testkit::model_server::{ModelServer, RecordedRequest, Reply};
use herm_testkit::process::{Launch, Server};
use herm_types::Rng as _;
use herm_types::time::SystemRng;
use tempfile::TempDir;

use crate::api::Api;

/// For how long a server is left alone until what it does on its own is done: its sandboxes start.
const SETTLE: Duration = Duration::from_secs(2);

pub(crate) struct Bed {
    pub(crate) model: ModelServer,
    launch: Launch,
    key: String,
    dir: TempDir,
}

impl Bed {
    /// A fresh directory, and a model that answers `ok`.
    pub(crate) async fn new() -> anyhow::Result<Self> {
        let program = beside_this("herm")?;
        ensure!(
            program.is_file(),
            "there is no {}: build it with the same profile, as `make bench` does",
            program.display()
        );
        let dir = fresh_dir()?;
        let model = ModelServer::start().await;
        model.record(false);
        model.respond_with(|_| Reply::text("ok"));
        let key = ApiKey::generate(KeyKind::Secret, &mut |bytes| SystemRng.fill(bytes)).expose().to_owned();
        let launch = Launch::new(program, dir.path())
            .env("HERM_DATA_DIR", dir.path().join("data").to_string_lossy())
            .env("HERM_LISTEN", "127.0.0.1:0")
            .env("HERM_BOOTSTRAP_KEY", &key)
            .env("HERM_DEFAULT_MODEL", "anthropic/scripted")
            .env("ANTHROPIC_API_KEY", "sk-ant-bench")
            .env("ANTHROPIC_BASE_URL", model.base_url())
            .argument("serve");
        Ok(Self { model, launch, key, dir })
    }

    /// The same, with a Docker engine and the image of its sandboxes.
    pub(crate) fn with_docker(self, host: &str, image: &str) -> Self {
        let launch = self.launch.env("HERM_DOCKER_HOST", host).env("HERM_SANDBOX_IMAGE", image);
        Self { launch: launch.env("HERM_SANDBOX", "refuse"), ..self }
    }

    /// The same, with sandboxes that may reach this address of the machine.
    pub(crate) fn with_private_egress(self, address: &str) -> Self {
        let launch = self.launch.env("HERM_ALLOW_PRIVATE_EGRESS", address);
        Self { launch, ..self }
    }

    /// The same, with a server that trusts the authorities in this file of PEM, and no other.
    pub(crate) fn with_roots(self, file: &Path) -> Self {
        let launch = self.launch.env("SSL_CERT_FILE", file.to_string_lossy());
        Self { launch, ..self }
    }

    pub(crate) fn respond_with(&self, responder: impl Fn(&RecordedRequest) -> Reply + Send + Sync + 'static) {
        self.model.respond_with(responder);
    }

    /// Starts a server, whose environment holds nothing but an address, a key and the model: all else as it is for
    /// everybody.
    pub(crate) async fn start(&self) -> anyhow::Result<(Server, Api)> {
        match self.launch.serve().await.context("failed to start the server")? {
            Ok(server) => {
                let api = Api::new(server.base_url(), &self.key);
                Ok((server, api))
            }
            Err(finished) => bail!("the server ended at once: {}", finished.stderr.trim()),
        }
    }

    /// What the database holds on disk, its log included, in bytes. Without a server, and after one was stopped.
    pub(crate) fn database_bytes(&self) -> anyhow::Result<u64> {
        let mut bytes = 0;
        for entry in std::fs::read_dir(self.data_dir())? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("herm.sqlite3") {
                bytes += entry.metadata()?.len();
            }
        }
        Ok(bytes)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

/// Stops a server as an operator does.
pub(crate) async fn stop(server: Server) -> anyhow::Result<()> {
    server.terminate()?;
    let finished = server.wait().await?;
    ensure!(
        finished.status.success(),
        "the server ended with {}: {}",
        finished.status,
        finished.stderr.trim()
    );
    Ok(())
}

pub(crate) async fn settle() {
    tokio::time::sleep(SETTLE).await;
}

/// A fresh directory on the disk that holds the build: the one for throwaway files may be memory, where nothing has
/// to be durable.
pub(crate) fn fresh_dir() -> anyhow::Result<TempDir> {
    let beside = beside_this("")?;
    let dir = tempfile::Builder::new().prefix("herm-bench-").tempdir_in(&beside);
    dir.with_context(|| format!("failed to make a directory in {}", beside.display()))
}

fn beside_this(name: &str) -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("failed to find this program")?;
    Ok(this.parent().unwrap_or(Path::new(".")).join(name))
}
