//! A server in this process, whole but for its engine, its clock and its model: it can die where a fault point is, be told
//! to stop, and be started again.

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
use herm_sandbox::{AWAY_LIMIT, Certificates, DockerOptions, Sandboxes, Workspaces};
use herm_store::{DatabaseClock, Store, fault, queue};
use herm_types::model::ModelName;
use herm_types::sandbox::{EgressMode, SandboxType};
use herm_types::time::SystemRng;
use herm_types::{DeploymentId, IdSource};
use herm_worker::Worker;
use herm_worker::egress::{self, WaysOut};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use crate::plan::Trouble;
use crate::world::Shared;

/// Simulated time from one tick to the next.
const TICK: Duration = Duration::from_millis(5);
/// How often tasks take turns in a tick.
const TURNS: u32 = 25;
/// After so many ticks, a second, the server waits until clients, model and guests have had their turn: what it asks of
/// them is real, and its limits, of several seconds, must not end only because their thread was not given the processor.
/// More often would take long on a machine where each turn is waited for.
const TICKS_ALONE: u64 = 200;
/// How often tasks of the others take turns then: enough to see what has come, and to answer.
const TURNS_OF_OTHERS: u32 = 8;
/// Between two looks whether the world has ended, and with it whoever is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Ticks that a full disk or the loss of hints lasts.
const TROUBLE_TICKS: u64 = 200;
/// How long a runtime may take to end what blocks, which it must, or two servers would live at once.
const END_LIMIT: Duration = Duration::from_secs(600);

/// What unwinds a task where the process is to die: nothing is written of it, as nothing is of a process that is killed.
struct Death;

/// What becomes of reaching a fault point.
pub(crate) fn reached(shared: &Shared) {
    if shared.is_dead.load(Ordering::SeqCst) {
        resume_unwind(Box::new(Death));
    }
    for trouble in shared.due() {
        if trouble == Trouble::Crash {
            shared.is_dead.store(true, Ordering::SeqCst);
            shared.count(Trouble::Crash);
            resume_unwind(Box::new(Death));
        }
        shared.pending().push(trouble);
    }
}

/// Lets one server after another live, until the world is over.
pub(crate) fn live(shared: &Arc<Shared>) {
    while !shared.is_over.load(Ordering::SeqCst) {
        shared.is_dead.store(false, Ordering::SeqCst);
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            // While somebody blocks, Tokio's time stands still but for the ticks.
            let (_held, blocked) = std::sync::mpsc::channel::<()>();
            tokio::task::spawn_blocking(move || blocked.recv());
            run(shared).await;
        });
        shared.url.send_replace(None);
        runtime.shutdown_timeout(END_LIMIT);
        fault::fill_disk(false);
        fault::lose_hints(false);
    }
}

/// A server's life, until it has stopped, or died.
async fn run(shared: &Arc<Shared>) {
    let mut starting = tokio::spawn(start(Arc::clone(shared)));
    let mut server = None;
    let mut stopping = None;
    let mut ends_at = 0;
    for tick in 0u64.. {
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        if tick % TICKS_ALONE == 0 {
            wait_for_others(shared);
        }
        shared.clock.advance_ms(i64::try_from(TICK.as_millis()).unwrap_or_default());
        tokio::time::advance(TICK).await;
        if shared.is_dead.load(Ordering::SeqCst) || shared.is_over.load(Ordering::SeqCst) {
            return;
        }
        if server.is_none() && stopping.is_none() && starting.is_finished() {
            match (&mut starting).await {
                Ok(Ok(started)) => server = Some(started),
                // It did not start: the disk is full, or the database was just cut off.
                Ok(Err(_)) | Err(_) => return,
            }
        }
        if tick >= ends_at || shared.is_calm.load(Ordering::SeqCst) {
            fault::fill_disk(false);
            fault::lose_hints(false);
        }
        let pending = std::mem::take(&mut *shared.pending());
        for trouble in pending {
            shared.count(trouble);
            ends_at = tick + TROUBLE_TICKS;
            if make(shared, trouble, server.as_mut()).await
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

/// Waits until each task of the others' runtime has had its turn, or the world is over.
fn wait_for_others(shared: &Shared) {
    let (done, wait) = std::sync::mpsc::channel();
    shared.others.spawn(async move {
        for _ in 0..TURNS_OF_OTHERS {
            tokio::task::yield_now().await;
        }
        // Who waited may have gone.
        let _ = done.send(());
    });
    while wait.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        if shared.is_over.load(Ordering::SeqCst) {
            return;
        }
    }
}

/// Makes trouble; `true` if the server is to stop.
async fn make(shared: &Arc<Shared>, trouble: Trouble, server: Option<&mut Server>) -> bool {
    match trouble {
        Trouble::Crash => {}
        Trouble::Restart => return true,
        Trouble::ClockJump { ms } => shared.clock.advance_ms(ms),
        Trouble::FullDisk => fault::fill_disk(true),
        Trouble::LostWakeUps => fault::lose_hints(true),
        Trouble::DeadSandbox => shared.machine.kill_any(shared.reached.load(Ordering::SeqCst)),
        Trouble::CutLine => shared.machine.cut_any(shared.reached.load(Ordering::SeqCst)),
        Trouble::DatabaseRestart => return !shared.cut_database().await,
        Trouble::Usurp => {
            if let Some(server) = server {
                let options = server.options.for_worker(shared);
                server.usurpers.push(tokio::spawn(Worker::start(options)));
            }
        }
        Trouble::DoubledWakeUp => {
            if let Some(server) = server {
                let (store, ids) = (server.options.store.clone(), server.options.ids.clone());
                tokio::spawn(async move { wake(&store, &ids).await });
            }
        }
    }
    false
}

/// Says that there is work, and that runs were changed, whether it is so or not.
async fn wake(store: &Store, ids: &IdSource) {
    store.feed().nudge(ids.next());
    let nobody: DeploymentId = ids.next();
    let woken: Result<(), herm_store::Error> = store
        .transaction("doubled_wake_up", move |tx| {
            Box::pin(async move { queue::hasten(tx, nobody, "nobody").await })
        })
        .await;
    // A hint that gets lost changes nothing.
    let _ = woken;
}

/// What servers and workers are made of.
#[derive(Clone)]
struct Parts {
    store: Store,
    ids: IdSource,
    sealer: Sealer,
    sandboxes: Sandboxes,
    workspaces: Workspaces,
    snapshots: Snapshots,
    quotas: Quotas,
}

impl Parts {
    fn for_worker(&self, shared: &Shared) -> herm_worker::Options {
        let provider = ProviderOptions {
            name: "anthropic".to_owned(),
            kind: ProviderKind::Anthropic,
            base_url: shared.model_url.clone(),
            api_key: Some("sk-ant-test".to_owned().into()),
        };
        herm_worker::Options {
            store: self.store.clone(),
            ids: self.ids.clone(),
            rng: Arc::new(SystemRng),
            providers: Providers::new(vec![provider], Limits::DEFAULT, herm_outbound::tls().unwrap())
                .unwrap(),
            sandboxes: self.sandboxes.clone(),
            workspaces: self.workspaces.clone(),
            snapshots: self.snapshots.clone(),
            quotas: self.quotas.clone(),
            event_retention_days: None,
            ways_out: WaysOut::new(egress::Options {
                store: self.store.clone(),
                sealer: self.sealer.clone(),
                rng: Arc::new(SystemRng),
                default_mode: EgressMode::Deny,
            }),
        }
    }
}

struct Server {
    options: Parts,
    app: App,
    worker: Worker,
    usurpers: Vec<tokio::task::JoinHandle<Result<Worker, herm_store::Error>>>,
    close: CancellationToken,
    http: tokio::task::JoinHandle<()>,
}

impl Server {
    /// As the binary does it.
    async fn stop(self) {
        self.app.drain();
        self.worker.stop(Duration::from_secs(10)).await;
        for usurper in self.usurpers {
            if let Ok(Ok(worker)) = usurper.await {
                worker.stop(Duration::from_secs(10)).await;
            }
        }
        self.close.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(3), self.http).await;
        self.options.store.close().await;
    }
}

async fn start(shared: Arc<Shared>) -> anyhow::Result<Server> {
    let store = Store::open(herm_store::Options {
        location: shared.location(),
        clock: Arc::clone(&shared.clock) as _,
        database_clock: DatabaseClock::Given,
        migrate: true,
        exclusive: true,
    })
    .await?;
    let ids = IdSource::new(Arc::clone(&shared.clock) as _, Arc::new(SystemRng));
    herm_app::keys::accept_bootstrap(&store, &ids, &shared.key).await?;
    let sealer = shared.sealer.clone();
    herm_app::master_key::check(&store, &sealer).await?;
    let parts = Parts {
        store: store.clone(),
        ids: ids.clone(),
        sealer: sealer.clone(),
        sandboxes: sandboxes(&shared)?,
        workspaces: Workspaces::new(shared.dir.path().join("workspaces")),
        snapshots: Snapshots::new(shared.dir.path().join("snapshots")),
        quotas: Quotas::new(Arc::clone(&shared.clock) as _),
    };
    let settings = Settings {
        default_model: ModelName::parse("anthropic/simulated").unwrap(),
        providers: vec!["anthropic".to_owned()],
        docker_becomes: Some(SandboxType::Local),
        workspaces: parts.workspaces.clone(),
        snapshots: parts.snapshots.clone(),
        quotas: parts.quotas.clone(),
        max_file_bytes: 1024 * 1024,
    };
    let app = App::new(
        store,
        ids,
        Arc::clone(&shared.clock) as _,
        sealer,
        Fetcher::new(herm_outbound::Allowed::default(), herm_outbound::tls()?)?,
        Arc::new(parts.sandboxes.clone()),
        settings,
    );
    let worker = Worker::start(parts.for_worker(&shared)).await?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let close = CancellationToken::new();
    let router = herm_api::router(app.clone(), herm_api::Options::default());
    let http = tokio::spawn(herm_api::serve(listener, router, close.clone()));
    shared.url.send_replace(Some(url));
    Ok(Server { options: parts, app, worker, usurpers: Vec::new(), close, http })
}

fn sandboxes(shared: &Shared) -> anyhow::Result<Sandboxes> {
    let sandboxes = Sandboxes::new(herm_sandbox::Options {
        data_dir: shared.dir.path().to_owned(),
        rng: Arc::new(SystemRng),
        away_limit: AWAY_LIMIT,
        docker: DockerOptions { host: None, image: "none".to_owned() },
        certificates: Certificates::default(),
        carry: Arc::new(|_, _| {}),
    })?;
    Ok(sandboxes.on(Arc::new(shared.machine.clone())))
}
