//! A complete server in this process: store, worker and HTTP API.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use herm_app::{App, Sealer, Settings};
use herm_config::{Config, SandboxFallback};
use herm_egress::{Authority, Egress};
use herm_llm::{Limits, ProviderKind, ProviderOptions, Providers};
use herm_outbound::Fetcher;
use herm_sandbox::snapshots::Snapshots;
use herm_sandbox::workspace::Quotas;
use herm_sandbox::{Certificates, DockerOptions, RECONNECT_TIMEOUT, Sandboxes, Workspaces};
use herm_store::Store;
use herm_types::sandbox::SandboxType;
use herm_types::time::{SystemClock, SystemRng};
use herm_worker::Worker;
use herm_worker::egress::{self, EgressService};
use rustls::ClientConfig;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::open::id_source;
use crate::{api_options, master_key};

/// The maximum time for which runs may continue after shutdown is requested. After that, the worker
/// interrupts them, and the next server process resumes them.
const DRAIN_RUNS: Duration = Duration::from_secs(10);
/// The maximum time for which open HTTP responses may continue after the worker has stopped. After that,
/// their connections are closed.
const DRAIN_RESPONSES: Duration = Duration::from_secs(3);
/// The maximum time for closing the database. After that, the process exits without waiting any longer.
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
    /// Starts the server. When this function returns, the server accepts requests.
    pub(crate) async fn start(config: &Config, store: Store) -> anyhow::Result<Self> {
        let ids = id_source();
        let listener = TcpListener::bind(config.server.listen)
            .await
            .with_context(|| format!("failed to listen on {}", config.server.listen))?;
        let address = listener.local_addr()?;
        let workspaces = Workspaces::new(config.server.data_dir.join("workspaces"));
        let snapshots = Snapshots::new(config.server.data_dir.join("snapshots"));
        let quotas = Quotas::new(Arc::new(SystemClock));
        let settings = Settings {
            default_model: config.models.default_model.clone(),
            providers: provider_names(config),
            docker_fallback: match config.sandbox.fallback {
                SandboxFallback::Local => Some(SandboxType::Local),
                SandboxFallback::Refuse => None,
            },
            workspaces: workspaces.clone(),
            snapshots: snapshots.clone(),
            quotas: quotas.clone(),
            max_file_bytes: config.server.max_file_bytes,
        };
        let must_exist = herm_app::master_key::is_needed(&store)
            .await
            .context("failed to check whether the database contains encrypted values")?;
        let sealer = Sealer::new(master_key::key_ring(config, must_exist)?, Arc::new(SystemRng));
        herm_app::master_key::check(&store, &sealer).await?;
        let egress_service = egress_service(config, &store, &sealer);
        let sandboxes = sandboxes(config, &egress_service)?;
        tokio::spawn(warn_without_sandbox(sandboxes.clone()));
        let tls = herm_outbound::tls_client_config().context("failed to set up TLS")?;
        let fetcher = Fetcher::new(config.network.allow_private_urls.clone().into(), tls.clone())
            .context("failed to set up the HTTP client for skills")?;
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
            egress_service,
            event_retention_days: config.server.event_retention_days,
        })
        .await
        .context("failed to start the worker")?;
        let router = herm_api::router(app.clone(), api_options::from_config(config));
        let close = CancellationToken::new();
        let http = tokio::spawn(herm_api::serve(listener, router, close.clone()));
        Ok(Self { address, store, app, worker, close, http })
    }

    /// Drains and stops the server. New work is refused, event streams end with a retry hint, and active runs
    /// may continue for a limited time. The next server process resumes runs that have not ended by then.
    pub(crate) async fn stop(self) {
        self.app.drain();
        self.worker.stop(drain_runs()).await;
        self.close.cancel();
        if tokio::time::timeout(DRAIN_RESPONSES, self.http).await.is_err() {
            tracing::warn!("the shutdown timeout expired; closed HTTP connections with incomplete responses");
        }
        if tokio::time::timeout(CLOSE_DATABASE, self.store.close()).await.is_err() {
            tracing::warn!(
                "gave up closing the database, because it took too long; all acknowledged changes are durable"
            );
        }
    }
}

#[cfg(feature = "failpoints")]
fn drain_runs() -> Duration {
    crate::failpoint::drain_runs().unwrap_or(DRAIN_RUNS)
}

#[cfg(not(feature = "failpoints"))]
fn drain_runs() -> Duration {
    DRAIN_RUNS
}

/// Creates the service that supplies the egress proxy with egress policies and secret values.
fn egress_service(config: &Config, store: &Store, sealer: &Sealer) -> EgressService {
    EgressService::new(egress::Options {
        store: store.clone(),
        sealer: sealer.clone(),
        rng: Arc::new(SystemRng),
        default_mode: config.network.egress_default,
    })
}

fn sandboxes(config: &Config, egress_service: &EgressService) -> anyhow::Result<Sandboxes> {
    let egress = egress(config)?;
    Sandboxes::new(herm_sandbox::Options {
        data_dir: config.server.data_dir.clone(),
        rng: Arc::new(SystemRng),
        reconnect_timeout: RECONNECT_TIMEOUT,
        docker: DockerOptions {
            host: Some(config.sandbox.docker_host.clone()),
            image: config.sandbox.image.clone(),
        },
        certificates: Certificates {
            bundle: egress.authority().bundle(),
            proxy: egress.authority().ca_pem().to_owned(),
        },
        proxy_handler: egress_service.proxy_handler(egress),
    })
    .context("failed to set up the sandbox engines")
}

/// Creates the egress proxy.
fn egress(config: &Config) -> anyhow::Result<Egress> {
    let authority = Authority::open(&config.server.data_dir, Arc::new(SystemClock))
        .context("failed to open the certificate authority of the egress proxy")?;
    let allowed = config.network.allow_private_egress.clone().into();
    Egress::new(herm_egress::Options { allowed, ..herm_egress::Options::new(authority) })
        .context("failed to set up the egress proxy")
}

/// Logs a warning at startup if the `local` sandbox engine does not work. Without this warning, the operator
/// would notice the problem only when a command fails.
async fn warn_without_sandbox(sandboxes: Sandboxes) {
    if let Err(error) = sandboxes.check(SandboxType::Local).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the local sandbox engine does not work; commands in local sandboxes will fail"
        );
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
