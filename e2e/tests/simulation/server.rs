//! Runs complete servers inside the test process. Only the clock, the model and the machine that runs the sandboxes are
//! simulated. A server can be killed at any failpoint, stopped, and started again.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use herm_app::{App, Sealer, Settings};
use herm_llm::{Limits, ProviderKind, ProviderOptions, Providers};
use herm_outbound::Fetcher;
use herm_sandbox::snapshots::Snapshots;
use herm_sandbox::workspace::Quotas;
use herm_sandbox::{Certificates, DockerOptions, RECONNECT_TIMEOUT, Sandboxes, Workspaces};
use herm_store::{DatabaseClock, Store, failpoint, queue};
use herm_types::model::ModelName;
use herm_types::sandbox::{EgressMode, SandboxType};
use herm_types::time::SystemRng;
use herm_types::{DeploymentId, IdSource};
use herm_worker::Worker;
use herm_worker::egress::{self, EgressService};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use crate::plan::InjectedFailure;
use crate::simulation::Environment;

/// The time by which the simulated clock advances per tick.
const TICK: Duration = Duration::from_millis(5);
/// The number of times per tick that each of the server's tasks gets a turn to run.
const TURNS_PER_TICK: u32 = 25;
/// Once per this number of ticks, which is one simulated second, the server waits for its peers: the clients, the model
/// and the guests in the sandboxes. The peers run in real time. Without the waits, the server's timeouts of several
/// seconds could expire merely because the peers' thread got no processor time. More frequent waits would slow the test
/// down, because each wait takes a long time on a busy machine.
const PEER_WAIT_TICKS: u64 = 200;
/// The number of turns that the peers' tasks get in each wait: enough to receive a message and to respond to it.
const PEER_TURNS: u32 = 8;
/// The interval at which a server that waits for its peers checks whether the simulation has ended.
const END_CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// The number of ticks for which an injected full disk or loss of wake-ups lasts.
const FAILURE_TICKS: u64 = 200;
/// The maximum time to wait for the blocking tasks of a server's Tokio runtime to end. A task that outlived its runtime
/// would run at the same time as the next server.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(120);

/// The panic payload that unwinds the tasks of a killed server. It is raised with `resume_unwind`, which prints
/// nothing.
struct SimulatedKill;

/// Called whenever a server reaches a failpoint. If the server is being killed, unwinds the calling task. Otherwise,
/// schedules the failures that are planned for this failpoint.
pub(crate) fn on_failpoint(environment: &Environment) {
    if environment.is_killed.load(Ordering::SeqCst) {
        resume_unwind(Box::new(SimulatedKill));
    }
    for failure in environment.due() {
        if failure == InjectedFailure::Crash {
            environment.is_killed.store(true, Ordering::SeqCst);
            environment.count(InjectedFailure::Crash);
            resume_unwind(Box::new(SimulatedKill));
        }
        environment.pending().push(failure);
    }
}

/// Runs one server after another until the simulation is over.
pub(crate) fn run_servers(environment: &Arc<Environment>) {
    while !environment.is_over.load(Ordering::SeqCst) {
        environment.is_killed.store(false, Ordering::SeqCst);
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            // When all tasks are idle, Tokio advances paused time automatically, but not while a blocking task exists.
            // This blocking task ensures that only the ticks advance the time.
            let (_sender, blocked) = std::sync::mpsc::channel::<()>();
            tokio::task::spawn_blocking(move || blocked.recv());
            run_server(environment).await;
        });
        environment.url.send_replace(None);
        runtime.shutdown_timeout(SHUTDOWN_LIMIT);
        failpoint::fill_disk(false);
        failpoint::lose_hints(false);
    }
}

/// Runs one server until it is killed or stopped, or fails to start.
async fn run_server(environment: &Arc<Environment>) {
    let mut starting = tokio::spawn(start(Arc::clone(environment)));
    let mut server = None;
    let mut stopping = None;
    let mut ends_at = 0;
    for tick in 0u64.. {
        for _ in 0..TURNS_PER_TICK {
            tokio::task::yield_now().await;
        }
        if tick % PEER_WAIT_TICKS == 0 {
            wait_for_peers(environment);
        }
        environment.clock.advance_ms(i64::try_from(TICK.as_millis()).unwrap_or_default());
        tokio::time::advance(TICK).await;
        if environment.is_killed.load(Ordering::SeqCst) || environment.is_over.load(Ordering::SeqCst) {
            return;
        }
        if server.is_none() && stopping.is_none() && starting.is_finished() {
            match (&mut starting).await {
                Ok(Ok(started)) => server = Some(started),
                // The start may fail, for example because the disk is full or the database connections were terminated.
                Ok(Err(_)) | Err(_) => return,
            }
        }
        if tick >= ends_at || environment.is_calm.load(Ordering::SeqCst) {
            failpoint::fill_disk(false);
            failpoint::lose_hints(false);
        }
        let pending = std::mem::take(&mut *environment.pending());
        for failure in pending {
            environment.count(failure);
            ends_at = tick + FAILURE_TICKS;
            if inject(environment, failure, server.as_mut()).await
                && let Some(server) = server.take()
            {
                stopping = Some(tokio::spawn(server.stop()));
            }
        }
        if stopping.as_ref().is_some_and(tokio::task::JoinHandle::is_finished) {
            return;
        }
    }
}

/// Waits until the tasks of the clients, the model and the guests in the sandboxes have had a chance to run, or until
/// the simulation is over.
fn wait_for_peers(environment: &Environment) {
    let (done, wait) = std::sync::mpsc::channel();
    environment.peer_runtime.spawn(async move {
        for _ in 0..PEER_TURNS {
            tokio::task::yield_now().await;
        }
        // This fails if the simulation has ended and the server no longer waits for its peers.
        let _ = done.send(());
    });
    while wait.recv_timeout(END_CHECK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        if environment.is_over.load(Ordering::SeqCst) {
            return;
        }
    }
}

/// Injects a failure. Returns true if the caller must stop the server.
async fn inject(
    environment: &Arc<Environment>,
    failure: InjectedFailure,
    server: Option<&mut Server>,
) -> bool {
    match failure {
        InjectedFailure::Crash => {}
        InjectedFailure::Restart => return true,
        InjectedFailure::ClockJump { ms } => environment.clock.advance_ms(ms),
        InjectedFailure::FullDisk => failpoint::fill_disk(true),
        InjectedFailure::LostWakeUps => failpoint::lose_hints(true),
        InjectedFailure::KilledSandbox => {
            environment.machine.kill_any(environment.reached_failpoints.load(Ordering::SeqCst));
        }
        InjectedFailure::GuestDisconnect => {
            environment.machine.disconnect_any(environment.reached_failpoints.load(Ordering::SeqCst));
        }
        InjectedFailure::DatabaseRestart => return !environment.cut_database_connections().await,
        InjectedFailure::TakeOverLeases => {
            if let Some(server) = server {
                let options = server.components.worker_options(environment);
                server.second_workers.push(tokio::spawn(Worker::start(options)));
            }
        }
        InjectedFailure::DuplicateWakeUps => {
            if let Some(server) = server {
                let (store, ids) = (server.components.store.clone(), server.components.ids.clone());
                tokio::spawn(async move { send_wake_ups(&store, &ids).await });
            }
        }
    }
    false
}

/// Sends a wake-up to the worker although there is no new work, and a change notification for a run that does not
/// exist.
async fn send_wake_ups(store: &Store, ids: &IdSource) {
    store.feed().run_changed(ids.next());
    let unknown: DeploymentId = ids.next();
    let result: Result<(), herm_store::Error> = store
        .transaction("duplicate_wake_up", move |tx| {
            Box::pin(async move { queue::make_due(tx, unknown, "unknown").await })
        })
        .await;
    // The transaction may fail. This has the same effect as a lost wake-up, which the server must tolerate anyway.
    let _ = result;
}

/// The components that a server and its workers share.
#[derive(Clone)]
struct Components {
    store: Store,
    ids: IdSource,
    sealer: Sealer,
    sandboxes: Sandboxes,
    workspaces: Workspaces,
    snapshots: Snapshots,
    quotas: Quotas,
}

impl Components {
    fn worker_options(&self, environment: &Environment) -> herm_worker::Options {
        let provider = ProviderOptions {
            name: "anthropic".to_owned(),
            kind: ProviderKind::Anthropic,
            base_url: environment.model_url.clone(),
            api_key: Some("sk-ant-test".to_owned().into()),
        };
        herm_worker::Options {
            store: self.store.clone(),
            ids: self.ids.clone(),
            rng: Arc::new(SystemRng),
            providers: Providers::new(
                vec![provider],
                Limits::DEFAULT,
                herm_outbound::tls_client_config().unwrap(),
            )
            .unwrap(),
            sandboxes: self.sandboxes.clone(),
            workspaces: self.workspaces.clone(),
            snapshots: self.snapshots.clone(),
            quotas: self.quotas.clone(),
            event_retention_days: None,
            egress_service: EgressService::new(egress::Options {
                store: self.store.clone(),
                sealer: self.sealer.clone(),
                rng: Arc::new(SystemRng),
                default_mode: EgressMode::Deny,
            }),
        }
    }
}

/// A running server.
struct Server {
    components: Components,
    app: App,
    worker: Worker,
    second_workers: Vec<tokio::task::JoinHandle<Result<Worker, herm_store::Error>>>,
    close: CancellationToken,
    http: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Stops the server's components in the same order as the real binary.
    async fn stop(self) {
        self.app.drain();
        self.worker.stop(Duration::from_secs(10)).await;
        for second_worker in self.second_workers {
            if let Ok(Ok(worker)) = second_worker.await {
                worker.stop(Duration::from_secs(10)).await;
            }
        }
        self.close.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(3), self.http).await;
        self.components.store.close().await;
    }
}

async fn start(environment: Arc<Environment>) -> anyhow::Result<Server> {
    let store = Store::open(herm_store::Options {
        location: environment.location(),
        clock: Arc::clone(&environment.clock) as _,
        database_clock: DatabaseClock::FromOptions,
        migrate: true,
        exclusive: true,
    })
    .await?;
    let ids = IdSource::new(Arc::clone(&environment.clock) as _, Arc::new(SystemRng));
    herm_app::keys::accept_bootstrap(&store, &ids, &environment.key).await?;
    let sealer = environment.sealer.clone();
    herm_app::master_key::check(&store, &sealer).await?;
    let components = Components {
        store: store.clone(),
        ids: ids.clone(),
        sealer: sealer.clone(),
        sandboxes: sandboxes(&environment)?,
        workspaces: Workspaces::new(environment.dir.path().join("workspaces")),
        snapshots: Snapshots::new(environment.dir.path().join("snapshots")),
        quotas: Quotas::new(Arc::clone(&environment.clock) as _),
    };
    let settings = Settings {
        default_model: ModelName::parse("anthropic/simulated").unwrap(),
        providers: vec!["anthropic".to_owned()],
        docker_fallback: Some(SandboxType::Local),
        workspaces: components.workspaces.clone(),
        snapshots: components.snapshots.clone(),
        quotas: components.quotas.clone(),
        max_file_bytes: 1024 * 1024,
    };
    let app = App::new(
        store,
        ids,
        Arc::clone(&environment.clock) as _,
        sealer,
        Fetcher::new(herm_outbound::AllowedAddresses::default(), herm_outbound::tls_client_config()?)?,
        Arc::new(components.sandboxes.clone()),
        settings,
    );
    let worker = Worker::start(components.worker_options(&environment)).await?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let close = CancellationToken::new();
    let router = herm_api::router(app.clone(), herm_api::Options::default());
    let http = tokio::spawn(herm_api::serve(listener, router, close.clone()));
    environment.url.send_replace(Some(url));
    Ok(Server { components, app, worker, second_workers: Vec::new(), close, http })
}

fn sandboxes(environment: &Environment) -> anyhow::Result<Sandboxes> {
    let sandboxes = Sandboxes::new(herm_sandbox::Options {
        data_dir: environment.dir.path().to_owned(),
        rng: Arc::new(SystemRng),
        reconnect_timeout: RECONNECT_TIMEOUT,
        docker: DockerOptions { host: None, image: "none".to_owned() },
        certificates: Certificates::default(),
        proxy_handler: Arc::new(|_, _| {}),
    })?;
    Ok(sandboxes.with_machine(Arc::new(environment.machine.clone())))
}
