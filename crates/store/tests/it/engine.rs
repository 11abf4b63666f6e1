//! Creates empty databases on SQLite and PostgreSQL, and test data in them.

use std::sync::Arc;

use herm_store::{
    DatabaseClock, Error, Location, Options, Store, Tx, deployments, messages, queue, runs, threads,
};
use herm_types::deployment::{Deployment, DeploymentSettings, DeploymentStatus};
use herm_types::id::Id as _;
use herm_types::sandbox::{SandboxSettings, SandboxType};
use herm_types::thread::Role;
use herm_types::time::{ManualClock, SystemRng};
use herm_types::{AccountId, DeploymentId, IdSource, MessageId, RunId, ThreadId, Timestamp, WorkId};
use secrecy::SecretString;
use sqlx::{Connection as _, Executor as _};

/// An empty database, with the clock and the id source that the test uses.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) ids: IdSource,
    pub(crate) location: Location,
    pub(crate) _dir: Option<tempfile::TempDir>,
}

impl World {
    pub(crate) async fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let location = Location::Sqlite(dir.path().to_owned());
        Self::open(location, Some(dir)).await
    }

    pub(crate) async fn postgres() -> Self {
        Self::open(Location::Postgres(fresh_postgres().await), None).await
    }

    async fn open(location: Location, dir: Option<tempfile::TempDir>) -> Self {
        // The clock advances only when a test advances it. The id source returns increasing ids even while the clock
        // stands still.
        let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_800_000_000_000_000)));
        let ids = IdSource::new(Arc::clone(&clock) as _, Arc::new(SystemRng));
        let store = Store::open(options(location.clone(), &clock)).await.unwrap();
        Self { store, clock, ids, location, _dir: dir }
    }

    /// Inserts a deployment and its default thread.
    pub(crate) async fn deployment(&self) -> Deployment {
        let deployment = self.new_deployment("customer");
        let inserted = deployment.clone();
        self.store
            .transaction("create", move |tx| {
                Box::pin(async move {
                    deployments::insert(tx, &inserted).await?;
                    threads::insert(tx, inserted.default_thread_id, inserted.deployment_id, None).await
                })
            })
            .await
            .unwrap();
        deployment
    }

    pub(crate) fn new_deployment(&self, customer_id: &str) -> Deployment {
        let sandbox = SandboxSettings::new(SandboxType::Docker, Some(SandboxType::Local));
        let now = Timestamp::from_micros(1_800_000_000_000_000);
        Deployment {
            deployment_id: self.ids.next(),
            account_id: AccountId::from_bits(7),
            customer_id: customer_id.to_owned(),
            name: "Ada".to_owned(),
            model: "demo/tour".to_owned(),
            system_prompt: "Be brief.".to_owned(),
            status: DeploymentStatus::Ready,
            error: None,
            restore_snapshot: None,
            default_thread_id: self.ids.next(),
            version: 1,
            settings: DeploymentSettings::new(sandbox),
            created_at: now,
            updated_at: now,
        }
    }

    /// Inserts a queued run with one user message, and the run's work item.
    pub(crate) async fn run(&self, deployment: &Deployment) -> (RunId, MessageId) {
        let (run_id, message_id, work_id): (RunId, MessageId, WorkId) =
            (self.ids.next(), self.ids.next(), self.ids.next());
        let (deployment_id, thread_id) = (deployment.deployment_id, deployment.default_thread_id);
        self.store
            .transaction("send", move |tx| {
                Box::pin(async move {
                    runs::insert(tx, run_id, deployment_id, thread_id).await?;
                    add_message(tx, message_id, thread_id, run_id, "hello").await?;
                    queue::enqueue(tx, work_id, queue::Kind::Run, run_id.to_string(), deployment_id).await
                })
            })
            .await
            .unwrap();
        (run_id, message_id)
    }
}

pub(crate) async fn add_message(
    tx: &mut Tx,
    message_id: MessageId,
    thread_id: ThreadId,
    run_id: RunId,
    content: &str,
) -> Result<(), Error> {
    let content = content.to_owned();
    messages::insert(
        tx,
        &messages::NewMessage {
            message_id,
            thread_id,
            run_id,
            role: Role::User,
            content,
            attachments: Vec::new(),
            truncated: false,
            answers: None,
        },
    )
    .await
}

pub(crate) fn options(location: Location, clock: &Arc<ManualClock>) -> Options {
    Options {
        location,
        clock: Arc::clone(clock) as _,
        database_clock: DatabaseClock::FromOptions,
        migrate: true,
        exclusive: true,
    }
}

/// Returns the number, type and data of all events in a deployment's event log.
pub(crate) async fn log(store: &Store, deployment_id: DeploymentId) -> Vec<(i64, String, String)> {
    let read = store
        .read("log", move |tx| {
            Box::pin(herm_store::events::read_after(tx, deployment_id, herm_types::EventId(0), 500))
        })
        .await
        .unwrap();
    read.iter().map(|event| (event.event_id.0, event.event.to_string(), event.data.to_string())).collect()
}

/// Creates an empty database on the PostgreSQL test server and returns its location.
pub(crate) async fn fresh_location() -> Location {
    Location::Postgres(fresh_postgres().await)
}

async fn fresh_postgres() -> SecretString {
    let url = std::env::var("HERM_TEST_POSTGRES_URL")
        .expect("HERM_TEST_POSTGRES_URL is not set: run `make test`, or this through scripts/postgres.sh");
    let name: RunId = IdSource::new(Arc::new(herm_types::time::SystemClock), Arc::new(SystemRng)).next();
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    let statement = format!("CREATE DATABASE {name}");
    connection.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}").into()
}

/// Turns each given test function, which takes a [`World`], into two tests: one on SQLite and one on PostgreSQL.
macro_rules! on_both_engines {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::engine::World::sqlite().await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::engine::World::postgres().await).await;
            })+
        }
    };
}
pub(crate) use on_both_engines;
