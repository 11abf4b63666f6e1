//! The environment of a test's servers: a data directory, a database, a scripted model and an API key.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use herm_crypto::{ApiKey, KeyKind};
use herm_testkit::client::{Client, Response};
use herm_testkit::model_server::ModelServer;
use herm_testkit::process::{Launch, Server};
use herm_types::time::{Clock, SystemClock, SystemRng};
use herm_types::{IdSource, Rng as _, RunId};
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};

/// The maximum time in seconds that the server waits for its runs to end when it shuts down. Even on a busy machine, no
/// run takes this long.
const DRAIN_S: &str = "120";

pub(crate) struct World {
    pub(crate) model: ModelServer,
    /// The command that starts the server, both for the first time and after a kill.
    pub(crate) serve: Launch,
    /// The `herm` command without arguments, in the same environment, for subcommands other than `serve`.
    pub(crate) command: Launch,
    pub(crate) client: Client,
    /// The URL of the PostgreSQL database. `None` if the database is SQLite.
    pub(crate) postgres: Option<String>,
    dir: tempfile::TempDir,
}

impl World {
    pub(crate) async fn sqlite() -> Self {
        Self::new(None).await
    }

    pub(crate) async fn postgres() -> Self {
        Self::new(Some(create_postgres_database().await)).await
    }

    async fn new(database_url: Option<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = ModelServer::start().await;
        let key = ApiKey::generate(KeyKind::Secret, &mut |bytes| SystemRng.fill(bytes)).expose().to_owned();
        let mut command = Launch::of_workspace(dir.path())
            .env("HERM_DATA_DIR", dir.path().join("data").to_string_lossy())
            .env("HERM_LISTEN", "127.0.0.1:0")
            .env("HERM_BOOTSTRAP_KEY", &key)
            .env("ANTHROPIC_API_KEY", "sk-ant-test")
            .env("ANTHROPIC_BASE_URL", model.base_url())
            .env("OPENAI_API_KEY", "sk-test")
            .env("OPENAI_BASE_URL", model.openai_base_url());
        let mut serve = command.clone().argument("serve").env("HERM_FAILPOINT_DRAIN_S", DRAIN_S);
        if let Some(url) = &database_url {
            command = command.env("HERM_DATABASE_URL", url);
            serve = serve.env("HERM_DATABASE_URL", url).argument("--migrate");
        }
        Self { client: Client::new("", &key), model, serve, command, postgres: database_url, dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts a server and waits until it accepts requests.
    pub(crate) async fn start(&self) -> Server {
        start(&self.serve).await
    }

    /// Returns a client for this server that authenticates with the bootstrap key.
    pub(crate) fn client_of(&self, server: &Server) -> Client {
        self.client.at(server.base_url())
    }

    /// Returns the deployment's workspace directory on the host.
    pub(crate) fn workspace(&self, deployment_id: &str) -> PathBuf {
        self.data_dir().join("workspaces").join(deployment_id)
    }

    /// Returns a text that occurs in the command lines of the deployment's sandbox processes on the host. Tests find
    /// the processes by this text. Panics if no sandbox was ever started in this world.
    pub(crate) fn sandbox_process(&self, deployment_id: &str) -> PathBuf {
        self.find_sandbox_process(deployment_id).unwrap()
    }

    /// Returns the same text as [`Self::sandbox_process`], or `None` if no sandbox was ever started in this world.
    pub(crate) fn find_sandbox_process(&self, deployment_id: &str) -> Option<PathBuf> {
        Some(format!("herm-sandbox:{}:{deployment_id}", self.instance()?).into())
    }

    /// Returns the instance id, which is part of the names of all sandboxes of this world. Returns `None` if no sandbox
    /// was ever started in this world.
    pub(crate) fn instance(&self) -> Option<String> {
        std::fs::read_to_string(self.data_dir().join("sandboxes/.shared/instance")).ok()
    }

    /// Returns the server's directory for the deployment's running sandbox. The directory does not exist while no
    /// sandbox is running.
    pub(crate) fn sandbox_dir(&self, deployment_id: &str) -> PathBuf {
        self.data_dir().canonicalize().unwrap().join("sandboxes").join(deployment_id)
    }
}

pub(crate) async fn start(launch: &Launch) -> Server {
    match launch.serve().await.unwrap() {
        Ok(server) => server,
        Err(finished) => panic!("the server did not start: {finished:?}"),
    }
}

/// Returns the request body that creates a deployment with this model.
pub(crate) fn deployment_of(model: &str) -> Value {
    json!({"customer_id": "acme", "name": "Ada", "system_prompt": "Be brief.", "model": model})
}

/// Creates a deployment with this model. Returns the deployment's id.
pub(crate) async fn create(client: &Client, model: &str) -> String {
    let response = client.post("/v1/deployments", &deployment_of(model)).await.unwrap();
    assert_eq!(response.status, 201, "{}", response.text());
    text(&response.json(), "deployment_id")
}

/// Sends a message to the deployment's default thread. Returns the run's id.
pub(crate) async fn send(client: &Client, deployment_id: &str, content: &str) -> String {
    let response = try_send(client, deployment_id, json!({"content": content})).await;
    assert_eq!(response.status, 202, "{}", response.text());
    text(&response.json(), "run_id")
}

pub(crate) async fn try_send(client: &Client, deployment_id: &str, body: Value) -> Response {
    client.post(&format!("/v1/deployments/{deployment_id}/messages"), &body).await.unwrap()
}

pub(crate) fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is missing in {value}")).to_owned()
}

async fn create_postgres_database() -> String {
    let url = std::env::var("HERM_TEST_POSTGRES_URL").expect(
        "HERM_TEST_POSTGRES_URL is not set: run the tests with `make test` or through scripts/postgres.sh",
    );
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let name: RunId = IdSource::new(clock, Arc::new(SystemRng)).next();
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

/// Defines two tests for each function that takes a [`World`]: one on SQLite and one on PostgreSQL.
macro_rules! on_both_databases {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::world::World::sqlite().await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::world::World::postgres().await).await;
            })+
        }
    };
}
pub(crate) use on_both_databases;
