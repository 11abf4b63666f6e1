//! A server's surroundings: its directory, its database, a scripted model, a key.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use herm_crypto::{ApiKey, KeyKind};
use herm_testkit::client::{Answer, Client};
use herm_testkit::model_server::ModelServer;
use herm_testkit::process::{Launch, Server};
use herm_types::time::{Clock, SystemClock, SystemRng};
use herm_types::{IdSource, Rng as _, RunId};
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};

/// Seconds that a server which is told to stop gives its runs, so that a test which lets them end is in time on a machine
/// of any speed.
const DRAIN_S: &str = "120";

pub(crate) struct World {
    pub(crate) model: ModelServer,
    /// How a server of this world is started, as it was first or after a crash.
    pub(crate) serve: Launch,
    /// The same surroundings for other commands.
    pub(crate) command: Launch,
    pub(crate) client: Client,
    /// Its database, where it is PostgreSQL.
    pub(crate) postgres: Option<String>,
    dir: tempfile::TempDir,
}

impl World {
    pub(crate) async fn sqlite() -> Self {
        Self::new(None).await
    }

    pub(crate) async fn postgres() -> Self {
        Self::new(Some(fresh_postgres().await)).await
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
        let mut serve = command.clone().argument("serve").env("FAULT_POINTS_DRAIN_S", DRAIN_S);
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

    /// Starts a server as it is usually started.
    pub(crate) async fn start(&self) -> Server {
        start(&self.serve).await
    }

    /// Its client.
    pub(crate) fn client_of(&self, server: &Server) -> Client {
        self.client.at(server.base_url())
    }

    /// The deployment's workspace on the host.
    pub(crate) fn workspace(&self, deployment_id: &str) -> PathBuf {
        self.data_dir().join("workspaces").join(deployment_id)
    }

    /// What the process of a deployment's sandbox is called on the host, whether it runs or not.
    pub(crate) fn sandbox_process(&self, deployment_id: &str) -> PathBuf {
        self.find_sandbox_process(deployment_id).unwrap()
    }

    /// The same, where this world has had a sandbox of any deployment.
    pub(crate) fn find_sandbox_process(&self, deployment_id: &str) -> Option<PathBuf> {
        Some(format!("herm-sandbox:{}:{deployment_id}", self.instance()?).into())
    }

    /// What the sandboxes of this world have in their names, where it has had any.
    pub(crate) fn instance(&self) -> Option<String> {
        std::fs::read_to_string(self.data_dir().join("sandboxes/.shared/instance")).ok()
    }

    /// The directory on the host that a deployment's sandbox has while it runs.
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

/// What makes a deployment of `model`.
pub(crate) fn deployment_of(model: &str) -> Value {
    json!({"customer_id": "acme", "name": "Ada", "system_prompt": "Be brief.", "model": model})
}

/// Makes a deployment; its id.
pub(crate) async fn create(client: &Client, model: &str) -> String {
    let answer = client.post("/v1/deployments", &deployment_of(model)).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
    text(&answer.json(), "deployment_id")
}

/// Sends a message to the default thread; the run's id.
pub(crate) async fn send(client: &Client, deployment_id: &str, content: &str) -> String {
    let answer = try_send(client, deployment_id, json!({"content": content})).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    text(&answer.json(), "run_id")
}

pub(crate) async fn try_send(client: &Client, deployment_id: &str, body: Value) -> Answer {
    client.post(&format!("/v1/deployments/{deployment_id}/messages"), &body).await.unwrap()
}

pub(crate) fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("there is no {key} in {value}")).to_owned()
}

async fn fresh_postgres() -> String {
    let url = std::env::var("HERM_TEST_POSTGRES_URL")
        .expect("HERM_TEST_POSTGRES_URL is not set: run `make test`, or this through scripts/postgres.sh");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let name: RunId = IdSource::new(clock, Arc::new(SystemRng)).next();
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

/// Makes a test on each database out of one function of a [`World`].
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
