//! The parts of a simulation that outlive its servers: files, database, sandboxes, model and clock.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use herm_app::Sealer;
use herm_crypto::{ApiKey, KeyKind, KeyRing, master_key};
use herm_store::{Location, failpoint};
use herm_testkit::client::Client;
use herm_testkit::model_server::ModelServer;
use herm_types::time::{ManualClock, SystemClock, SystemRng};
use herm_types::{IdSource, Rng as _, RunId, Timestamp};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::machine::SimulatedMachine;
use crate::plan::{InjectedFailure, Plan, PlannedFailure};
use crate::{model, server};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Database {
    Sqlite,
    Postgres,
}

/// The initial time of the simulated clock.
const START_TIME: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

/// The environment of the running simulation, to which servers report the failpoints that they reach. Only one
/// simulation runs at a time.
static CURRENT: Mutex<Option<Arc<Environment>>> = Mutex::new(None);
static EXCLUSIVE: Mutex<()> = Mutex::new(());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no other test in this process runs a simulation. This is necessary with `cargo test`, which runs all
/// tests in one process. nextest runs each test in its own process.
pub(crate) fn lock_exclusively() -> MutexGuard<'static, ()> {
    lock(&EXCLUSIVE)
}

/// The part of a simulation that all its servers share.
pub(crate) struct Environment {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) key: ApiKey,
    pub(crate) sealer: Sealer,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) machine: SimulatedMachine,
    pub(crate) model_url: String,
    /// The Tokio runtime of the server's peers: the clients, the model and the guests in the sandboxes.
    pub(crate) peer_runtime: Handle,
    /// The URL of the running server, or `None` while no server is running.
    pub(crate) url: watch::Sender<Option<String>>,
    /// True while the running server is being killed: each of its tasks ends at the next failpoint that it reaches.
    pub(crate) is_killed: AtomicBool,
    /// True once no more failures are injected.
    pub(crate) is_calm: Arc<AtomicBool>,
    /// True once no more servers are started.
    pub(crate) is_over: AtomicBool,
    /// The total number of failpoints that the servers have reached so far.
    pub(crate) reached_failpoints: AtomicU64,
    /// The URL of the PostgreSQL database, or `None` on SQLite.
    postgres: Option<String>,
    planned: Mutex<Vec<PlannedFailure>>,
    /// Failures whose failpoint was reached but that have not been injected yet.
    pending: Mutex<Vec<InjectedFailure>>,
    /// The number of injected failures of each kind.
    injected: Mutex<BTreeMap<&'static str, u64>>,
}

impl Environment {
    pub(crate) fn location(&self) -> Location {
        match &self.postgres {
            Some(url) => Location::Postgres(url.clone().into()),
            None => Location::Sqlite(self.dir.path().join("database")),
        }
    }

    /// Counts a reached failpoint and returns the failures that are planned for it.
    pub(crate) fn due(&self) -> Vec<InjectedFailure> {
        let reached = self.reached_failpoints.fetch_add(1, Ordering::SeqCst) + 1;
        if self.is_calm.load(Ordering::SeqCst) {
            return Vec::new();
        }
        let mut planned = lock(&self.planned);
        let count = planned.iter().take_while(|planned| planned.failpoint <= reached).count();
        planned.drain(..count).map(|planned| planned.failure).collect()
    }

    /// Returns the failures that must be injected at the next tick.
    pub(crate) fn pending(&self) -> MutexGuard<'_, Vec<InjectedFailure>> {
        lock(&self.pending)
    }

    /// Counts an injected failure.
    pub(crate) fn count(&self, failure: InjectedFailure) {
        let name = match failure {
            InjectedFailure::Crash => "crashes",
            InjectedFailure::Restart => "restarts",
            InjectedFailure::ClockJump { ms } if ms < 0 => "clock jumps back",
            InjectedFailure::ClockJump { .. } => "clock jumps ahead",
            InjectedFailure::TakeOverLeases => "leases taken over",
            InjectedFailure::DuplicateWakeUps => "duplicate wake-ups",
            InjectedFailure::LostWakeUps => "periods of lost wake-ups",
            InjectedFailure::FullDisk => "full disks",
            InjectedFailure::DatabaseRestart => "database restarts",
            InjectedFailure::KilledSandbox => "killed sandboxes",
            InjectedFailure::GuestDisconnect => "guest disconnects",
        };
        *lock(&self.injected).entry(name).or_default() += 1;
    }

    /// Terminates all of the server's connections to PostgreSQL. Returns false on SQLite, which has no network
    /// connections.
    pub(crate) async fn cut_database_connections(&self) -> bool {
        let Some(url) = self.postgres.clone() else { return false };
        // Uses a separate Tokio runtime on its own thread, because time is paused in the current runtime.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut connection = PgConnection::connect(&url).await?;
                let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                              WHERE datname = current_database() AND pid <> pg_backend_pid()";
                connection.execute(others).await?;
                connection.close().await
            })
        });
        thread.join().unwrap().unwrap();
        true
    }
}

/// The simulation of one seed: the servers, their environment and their plan.
pub(crate) struct Simulation {
    pub(crate) environment: Arc<Environment>,
    pub(crate) plan: Plan,
    pub(crate) seed: u64,
    pub(crate) model: ModelServer,
    /// The thread on which the servers run.
    server_thread: Option<JoinHandle<()>>,
}

/// Creates the simulation's directory, in memory if possible. The tests kill processes but not the machine, so the
/// files need not be on disk.
fn create_directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap()
}

impl Simulation {
    pub(crate) async fn new(database: Database, seed: u64) -> Self {
        failpoint::install(|_| {
            let current = lock(&CURRENT).clone();
            if let Some(environment) = current {
                server::on_failpoint(&environment);
            }
        });
        let plan = Plan::new(seed);
        let is_calm = Arc::new(AtomicBool::new(false));
        let model = model::start(seed, Arc::clone(&is_calm)).await;
        let mut fill = |bytes: &mut [u8]| SystemRng.fill(bytes);
        let environment = Arc::new(Environment {
            dir: create_directory(),
            key: ApiKey::generate(KeyKind::Secret, &mut fill),
            sealer: Sealer::new(KeyRing::new(&master_key::generate(&mut fill)), Arc::new(SystemRng)),
            clock: Arc::new(ManualClock::at(START_TIME)),
            machine: SimulatedMachine::new(),
            model_url: model.base_url(),
            peer_runtime: Handle::current(),
            url: watch::Sender::new(None),
            is_killed: AtomicBool::new(false),
            is_calm,
            is_over: AtomicBool::new(false),
            reached_failpoints: AtomicU64::new(0),
            postgres: if database == Database::Postgres {
                Some(create_postgres_database().await)
            } else {
                None
            },
            planned: Mutex::new(plan.failures.clone()),
            pending: Mutex::default(),
            injected: Mutex::default(),
        });
        *lock(&CURRENT) = Some(Arc::clone(&environment));
        let server_thread = {
            let environment = Arc::clone(&environment);
            std::thread::spawn(move || server::run_servers(&environment))
        };
        Self { environment, plan, seed, model, server_thread: Some(server_thread) }
    }

    /// Returns a client for the running server. Waits until a server is running.
    pub(crate) async fn client(&self) -> Client {
        let mut url = self.environment.url.subscribe();
        // This cannot fail, because `self` owns the sender.
        let url = url.wait_for(Option::is_some).await.ok().and_then(|url| url.clone());
        Client::new(&url.unwrap_or_default(), self.environment.key.expose())
    }

    /// Stops injecting failures.
    pub(crate) fn stop_failures(&self) {
        self.environment.is_calm.store(true, Ordering::SeqCst);
    }

    /// Stops the servers and returns the number of injected failures of each kind.
    pub(crate) fn end(&mut self) -> BTreeMap<&'static str, u64> {
        self.environment.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.server_thread.take() {
            // If the thread panicked, its message was already printed.
            let _ = thread.join();
        }
        lock(&self.environment.injected).clone()
    }

    /// Describes the state of a simulation that has not finished.
    pub(crate) fn describe_state(&self) -> String {
        let (injected, reached) =
            (lock(&self.environment.injected), self.environment.reached_failpoints.load(Ordering::SeqCst));
        format!(
            "{:?}; {injected:?} after {reached} failpoints; {:?}",
            self.plan,
            self.environment.url.borrow()
        )
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        self.end();
        *lock(&CURRENT) = None;
    }
}

/// Creates an empty database and returns its URL.
async fn create_postgres_database() -> String {
    let url = std::env::var("HERM_TEST_POSTGRES_URL").expect(
        "HERM_TEST_POSTGRES_URL is not set: run `make test`, or run this command through scripts/postgres.sh",
    );
    let name: RunId = IdSource::new(Arc::new(SystemClock), Arc::new(SystemRng)).next();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}
