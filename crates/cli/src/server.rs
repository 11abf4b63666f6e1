//! A whole server in this process: store, worker and HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use herm_app::{App, Sealer, Settings};
use herm_config::{Config, EgressDefault, SandboxFallback};
use herm_egress::{Authority, Egress};
use herm_llm::{Limits, ProviderKind, ProviderOptions, Providers};
use herm_outbound::Fetcher;
use herm_sandbox::snapshots::Snapshots;
use herm_sandbox::workspace::Quotas;
use herm_sandbox::{AWAY_LIMIT, Certificates, DockerOptions, Sandboxes, Workspaces};
use herm_store::Store;
use herm_types::sandbox::{EgressMode, SandboxType};
use herm_types::time::{SystemClock, SystemRng};
use herm_worker::Worker;
use herm_worker::egress::{self, WaysOut};
use rustls::ClientConfig;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::open::id_source;
use crate::{api_options, master_key};

/// How long runs may go on after the server was told to stop.
const DRAIN_RUNS: Duration = Duration::from_secs(10);
/// How long responses may go on after that.
const DRAIN_RESPONSES: Duration = Duration::from_secs(3);
/// How long the database may take to be closed.
const CLOSE_DATABASE: Duration = Duration::from_secs(5);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    store: Store,
    app: App,
    worker: Worker,
    close: CancellationToken,
    http: JoinHandle<()>,
}

impl Server {
    /// Starts everything; when this returns the server takes requests.
    pub(crate) async fn start(config: &Config, store: Store) -> anyhow::Result<Self> {
        let ids = id_source();
        let listener = TcpListener::bind(config.server.listen)
            .await
            .with_context(|| format!("failed to listen at {}", config.server.listen))?;
        let address = listener.local_addr()?;
        let workspaces = Workspaces::new(config.server.data_dir.join("workspaces"));
        let snapshots = Snapshots::new(config.server.data_dir.join("snapshots"));
        let quotas = Quotas::new(Arc::new(SystemClock));
        let settings = Settings {
            default_model: config.models.default_model.clone(),
            providers: provider_names(config),
            docker_becomes: match config.sandbox.fallback {
                SandboxFallback::Local => Some(SandboxType::Local),
                SandboxFallback::Refuse => None,
            },
            workspaces: workspaces.clone(),
            snapshots: snapshots.clone(),
            quotas: quotas.clone(),
            max_file_bytes: config.server.max_file_bytes,
        };
        let must_exist =
            herm_app::master_key::is_needed(&store).await.context("failed to read the database")?;
        let sealer = Sealer::new(master_key::ring(config, must_exist)?, Arc::new(SystemRng));
        herm_app::master_key::check(&store, &sealer).await?;
        let ways_out = ways_out(config, &store, &sealer);
        let sandboxes = sandboxes(config, &ways_out)?;
        tokio::spawn(warn_without_sandbox(sandboxes.clone()));
        let tls = herm_outbound::tls().context("failed to set up TLS")?;
        let fetcher = Fetcher::new(config.network.allow_private_urls.clone().into(), tls.clone())
            .context("failed to set up the fetching of skills")?;
        let app = App::new(
            store.clone(),
            ids.clone(),
            Arc::new(SystemClock),
            sealer,
            fetcher,
            Arc::new(sandboxes.clone()),
            settings,
        );
        let worker = Worker::start(herm_worker::Options {
            store: store.clone(),
            ids,
            rng: Arc::new(SystemRng),
            providers: providers(config, tls)?,
            sandboxes,
            workspaces,
            snapshots,
            quotas,
            ways_out,
            event_retention_days: config.server.event_retention_days,
        })
        .await
        .context("failed to start the worker")?;
        let router = herm_api::router(app.clone(), api_options::of(config));
        let close = CancellationToken::new();
        let http = tokio::spawn(herm_api::serve(listener, router, close.clone()));
        Ok(Self { address, store, app, worker, close, http })
    }

    /// Drains and stops: new work is refused, streams end with a retry hint, runs get a moment to end; those that
    /// don't are gone on with by the next server.
    pub(crate) async fn stop(self) {
        self.app.drain();
        self.worker.stop(drain_runs()).await;
        self.close.cancel();
        if tokio::time::timeout(DRAIN_RESPONSES, self.http).await.is_err() {
            tracing::warn!("some responses were cut off");
        }
        if tokio::time::timeout(CLOSE_DATABASE, self.store.close()).await.is_err() {
            tracing::warn!("the database was not closed in time; nothing that was acknowledged is lost");
        }
    }
}

#[cfg(feature = "fault-points")]
fn drain_runs() -> Duration {
    crate::fault::drain().unwrap_or(DRAIN_RUNS)
}

#[cfg(not(feature = "fault-points"))]
fn drain_runs() -> Duration {
    DRAIN_RUNS
}

/// What egress asks about deployments.
fn ways_out(config: &Config, store: &Store, sealer: &Sealer) -> WaysOut {
    WaysOut::new(egress::Options {
        store: store.clone(),
        sealer: sealer.clone(),
        rng: Arc::new(SystemRng),
        default_mode: match config.network.egress_default {
            EgressDefault::Open => EgressMode::Open,
            EgressDefault::Allowlist => EgressMode::Allowlist,
            EgressDefault::Deny => EgressMode::Deny,
        },
    })
}

fn sandboxes(config: &Config, ways_out: &WaysOut) -> anyhow::Result<Sandboxes> {
    let egress = egress(config)?;
    Sandboxes::new(herm_sandbox::Options {
        data_dir: config.server.data_dir.clone(),
        rng: Arc::new(SystemRng),
        away_limit: AWAY_LIMIT,
        docker: DockerOptions {
            host: Some(config.sandbox.docker_host.clone()),
            image: config.sandbox.image.clone(),
        },
        certificates: Certificates {
            bundle: egress.authority().bundle(),
            proxy: egress.authority().ca_pem().to_owned(),
        },
        carry: ways_out.carry(egress),
    })
    .context("failed to prepare the sandboxes")
}

/// The proxy that is the sandboxes' only way out.
fn egress(config: &Config) -> anyhow::Result<Egress> {
    let authority = Authority::open(&config.server.data_dir, Arc::new(SystemClock))
        .context("failed to open the certificate authority of the sandboxes' way out")?;
    let allowed = config.network.allow_private_egress.clone().into();
    Egress::new(herm_egress::Options { allowed, ..herm_egress::Options::new(authority) })
        .context("failed to set up the sandboxes' way out")
}

/// Says in the log, at once, what every command would say later.
async fn warn_without_sandbox(sandboxes: Sandboxes) {
    if let Err(error) = sandboxes.check(SandboxType::Local).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "commands will fail here");
    }
}

fn provider_names(config: &Config) -> Vec<String> {
    let configured = config.models.providers.iter().map(|provider| provider.name.clone());
    configured.chain([herm_worker::DEMO_PROVIDER.to_owned()]).collect()
}

fn providers(config: &Config, tls: ClientConfig) -> anyhow::Result<Providers> {
    let options = config.models.providers.iter().map(|provider| ProviderOptions {
        name: provider.name.clone(),
        kind: match provider.kind {
            herm_config::ProviderKind::Anthropic => ProviderKind::Anthropic,
            herm_config::ProviderKind::OpenAiChat => ProviderKind::OpenAiChat,
        },
        base_url: provider.base_url.clone(),
        api_key: provider.api_key.clone(),
    });
    let limits =
        Limits { headers: config.models.first_byte, silence: config.models.silence, ..Limits::DEFAULT };
    Providers::new(options.collect(), limits, tls).context("failed to set up the model providers")
}
