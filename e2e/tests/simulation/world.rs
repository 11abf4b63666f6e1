//! What outlives a server: its files, its database, its sandboxes, the model, the time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use herm_app::Sealer;
use herm_crypto::{ApiKey, KeyKind, KeyRing, master_key};
use herm_store::{Location, fault};
use herm_testkit::client::Client;
use herm_testkit::model_server::ModelServer;
use herm_types::time::{ManualClock, SystemClock, SystemRng};
use herm_types::{IdSource, Rng as _, RunId, Timestamp};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::machine::Sandboxes;
use crate::plan::{Plan, Planned, Trouble};
use crate::{model, server};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Database {
    Sqlite,
    Postgres,
}

/// Where simulated time begins.
const BEGINNING: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

/// The world whose fault points are reached; there is one at a time.
static PRESENT: Mutex<Option<Arc<Shared>>> = Mutex::new(None);
static ALONE: Mutex<()> = Mutex::new(());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps other tests of this process out of the world, where they run in one.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    lock(&ALONE)
}

/// What the world shares with the servers in it.
pub(crate) struct Shared {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) key: ApiKey,
    pub(crate) sealer: Sealer,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) machine: Sandboxes,
    pub(crate) model_url: String,
    /// The runtime of all but the server: clients, model and guests.
    pub(crate) others: Handle,
    /// Where the server of this moment is.
    pub(crate) url: watch::Sender<Option<String>>,
    /// The server of this moment is to die.
    pub(crate) is_dead: AtomicBool,
    pub(crate) is_calm: Arc<AtomicBool>,
    pub(crate) is_over: AtomicBool,
    /// Fault points so far.
    pub(crate) reached: AtomicU64,
    postgres: Option<String>,
    planned: Mutex<Vec<Planned>>,
    pending: Mutex<Vec<Trouble>>,
    made: Mutex<BTreeMap<&'static str, u64>>,
}

impl Shared {
    pub(crate) fn location(&self) -> Location {
        match &self.postgres {
            Some(url) => Location::Postgres(url.clone().into()),
            None => Location::Sqlite(self.dir.path().join("database")),
        }
    }

    /// Counts a fault point; gives what is to go wrong here.
    pub(crate) fn due(&self) -> Vec<Trouble> {
        let reached = self.reached.fetch_add(1, Ordering::SeqCst) + 1;
        if self.is_calm.load(Ordering::SeqCst) {
            return Vec::new();
        }
        let mut planned = lock(&self.planned);
        let count = planned.iter().take_while(|planned| planned.at <= reached).count();
        planned.drain(..count).map(|planned| planned.trouble).collect()
    }

    pub(crate) fn pending(&self) -> MutexGuard<'_, Vec<Trouble>> {
        lock(&self.pending)
    }

    pub(crate) fn count(&self, trouble: Trouble) {
        let name = match trouble {
            Trouble::Crash => "crashes",
            Trouble::Restart => "restarts",
            Trouble::ClockJump { ms } if ms < 0 => "clock jumps back",
            Trouble::ClockJump { .. } => "clock jumps ahead",
            Trouble::Usurp => "leases taken over",
            Trouble::DoubledWakeUp => "doubled wake-ups",
            Trouble::LostWakeUps => "spells of lost wake-ups",
            Trouble::FullDisk => "full disks",
            Trouble::DatabaseRestart => "database restarts",
            Trouble::DeadSandbox => "dead sandboxes",
            Trouble::CutLine => "cut guests' lines",
        };
        *lock(&self.made).entry(name).or_default() += 1;
    }

    /// Ends all of the server's connections to PostgreSQL; `false` where there is none to cut.
    pub(crate) async fn cut_database(&self) -> bool {
        let Some(url) = self.postgres.clone() else { return false };
        // On a thread of its own, as the time of this one does not go by itself.
        let cut = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut connection = PgConnection::connect(&url).await?;
                let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                              WHERE datname = current_database() AND pid <> pg_backend_pid()";
                connection.execute(others).await?;
                connection.close().await
            })
        });
        cut.join().unwrap().unwrap();
        true
    }
}

pub(crate) struct World {
    pub(crate) shared: Arc<Shared>,
    pub(crate) plan: Plan,
    pub(crate) seed: u64,
    pub(crate) model: ModelServer,
    lives: Option<JoinHandle<()>>,
}

/// In memory where that is possible: what is tested dies with a process, not with the machine's power.
fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap()
}

impl World {
    pub(crate) async fn new(database: Database, seed: u64) -> Self {
        fault::install(|_| {
            let present = lock(&PRESENT).clone();
            if let Some(present) = present {
                server::reached(&present);
            }
        });
        let plan = Plan::new(seed);
        let is_calm = Arc::new(AtomicBool::new(false));
        let model = model::start(seed, Arc::clone(&is_calm)).await;
        let mut fill = |bytes: &mut [u8]| SystemRng.fill(bytes);
        let shared = Arc::new(Shared {
            dir: directory(),
            key: ApiKey::generate(KeyKind::Secret, &mut fill),
            sealer: Sealer::new(KeyRing::new(&master_key::generate(&mut fill)), Arc::new(SystemRng)),
            clock: Arc::new(ManualClock::at(BEGINNING)),
            machine: Sandboxes::new(),
            model_url: model.base_url(),
            others: Handle::current(),
            url: watch::Sender::new(None),
            is_dead: AtomicBool::new(false),
            is_calm,
            is_over: AtomicBool::new(false),
            reached: AtomicU64::new(0),
            postgres: if database == Database::Postgres { Some(fresh_postgres().await) } else { None },
            planned: Mutex::new(plan.troubles.clone()),
            pending: Mutex::default(),
            made: Mutex::default(),
        });
        *lock(&PRESENT) = Some(Arc::clone(&shared));
        let lives = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || server::live(&shared))
        };
        Self { shared, plan, seed, model, lives: Some(lives) }
    }

    /// A client of the server that lives at this moment.
    pub(crate) async fn client(&self) -> Client {
        let mut url = self.shared.url.subscribe();
        // The sender is held here, so the wait ends with a server alone.
        let url = url.wait_for(Option::is_some).await.ok().and_then(|url| url.clone());
        Client::new(&url.unwrap_or_default(), self.shared.key.expose())
    }

    /// From now on nothing goes wrong.
    pub(crate) fn calm(&self) {
        self.shared.is_calm.store(true, Ordering::SeqCst);
    }

    /// Ends the server that lives; gives the troubles that there were.
    pub(crate) fn end(&mut self) -> BTreeMap<&'static str, u64> {
        self.shared.is_over.store(true, Ordering::SeqCst);
        if let Some(lives) = self.lives.take() {
            // Its panic is told by the thread itself.
            let _ = lives.join();
        }
        lock(&self.shared.made).clone()
    }

    /// Where it stands, for who wonders why it does not end.
    pub(crate) fn tell(&self) -> String {
        let (made, reached) = (lock(&self.shared.made), self.shared.reached.load(Ordering::SeqCst));
        format!("{:?}; {made:?} after {reached} fault points; {:?}", self.plan, self.shared.url.borrow())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.end();
        *lock(&PRESENT) = None;
    }
}

async fn fresh_postgres() -> String {
    let url = std::env::var("HERM_TEST_POSTGRES_URL")
        .expect("HERM_TEST_POSTGRES_URL is not set: run `make test`, or this through scripts/postgres.sh");
    let name: RunId = IdSource::new(Arc::new(SystemClock), Arc::new(SystemRng)).next();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}
