//! The setup of a server to be measured: its data directory, its scripted model and its API key.

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

/// The time that the benchmark gives a server to finish its background work, for example starting sandboxes.
const BACKGROUND_WORK_TIME: Duration = Duration::from_secs(2);

/// The configuration and data directory with which a server can be started several times.
pub(crate) struct ServerSetup {
    pub(crate) model: ModelServer,
    launch: Launch,
    key: String,
    dir: TempDir,
}

impl ServerSetup {
    /// Creates a setup with an empty data directory and a scripted model that always replies `ok`.
    pub(crate) async fn new() -> anyhow::Result<Self> {
        let program = sibling_path("herm")?;
        ensure!(
            program.is_file(),
            "the server binary {} does not exist: build it with the same profile, as `make bench` does",
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

    /// Makes the server create container sandboxes from `image` with the Docker engine at the address `host`.
    pub(crate) fn with_docker(self, host: &str, image: &str) -> Self {
        let launch = self.launch.env("HERM_DOCKER_HOST", host).env("HERM_SANDBOX_IMAGE", image);
        Self { launch: launch.env("HERM_SANDBOX", "refuse"), ..self }
    }

    /// Allows sandboxes to send requests to this private IP address.
    pub(crate) fn with_private_egress(self, address: &str) -> Self {
        let launch = self.launch.env("HERM_ALLOW_PRIVATE_EGRESS", address);
        Self { launch, ..self }
    }

    /// Makes the server trust only the certificate authorities (CAs) in this PEM file when it connects to other hosts.
    pub(crate) fn with_roots(self, file: &Path) -> Self {
        let launch = self.launch.env("SSL_CERT_FILE", file.to_string_lossy());
        Self { launch, ..self }
    }

    pub(crate) fn respond_with(&self, responder: impl Fn(&RecordedRequest) -> Reply + Send + Sync + 'static) {
        self.model.respond_with(responder);
    }

    /// Starts a server and waits until it accepts requests. The setup sets the server's listen address, API key, data
    /// directory and model. Other settings have their default values, unless a `with_` method has set them.
    pub(crate) async fn start(&self) -> anyhow::Result<(Server, Api)> {
        match self.launch.serve().await.context("failed to start the server")? {
            Ok(server) => {
                let api = Api::new(server.base_url(), &self.key);
                Ok((server, api))
            }
            Err(finished) => bail!("the server exited during its start: {}", finished.stderr.trim()),
        }
    }

    /// Returns the size of the database files in bytes, including the write-ahead log. Must be called while no server
    /// runs, because a running server still changes the files.
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

/// Stops a server with SIGTERM and waits until it has exited.
pub(crate) async fn stop(server: Server) -> anyhow::Result<()> {
    server.terminate()?;
    let finished = server.wait().await?;
    ensure!(
        finished.status.success(),
        "the server exited with {}: {}",
        finished.status,
        finished.stderr.trim()
    );
    Ok(())
}

/// Waits for a fixed time, because the server does not report when its background work is finished.
pub(crate) async fn wait_for_background_work() {
    tokio::time::sleep(BACKGROUND_WORK_TIME).await;
}

/// Creates an empty directory on the same disk as the build. The system's directory for temporary files is not used,
/// because it may be in memory, where an fsync takes no time.
pub(crate) fn fresh_dir() -> anyhow::Result<TempDir> {
    let parent = sibling_path("")?;
    let dir = tempfile::Builder::new().prefix("herm-bench-").tempdir_in(&parent);
    dir.with_context(|| format!("failed to create a directory in {}", parent.display()))
}

/// Returns the path of the file `name` in the directory of this executable.
fn sibling_path(name: &str) -> anyhow::Result<PathBuf> {
    let executable = std::env::current_exe().context("failed to determine the path of this executable")?;
    Ok(executable.parent().unwrap_or(Path::new(".")).join(name))
}
