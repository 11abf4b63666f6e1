//! The test environment: an API server that is called without a socket, and API keys for different kinds of callers.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use herm_api::{Options, router};
use herm_app::keys::{self, NewKey};
use herm_app::{App, Sealer, Settings};
use herm_crypto::{KeyRing, master_key};
use herm_outbound::Fetcher;
use herm_sandbox::Workspaces;
use herm_sandbox::snapshots::Snapshots;
use herm_sandbox::workspace::Quotas;
use herm_store::deployments::{self, Transition};
use herm_store::{DatabaseClock, Location, Store};
use herm_types::deployment::DeploymentError;
use herm_types::key::{KeyInfo, Scope};
use herm_types::model::ModelName;
use herm_types::network::PrivateTarget;
use herm_types::sandbox::SandboxType;
use herm_types::time::{ManualClock, SystemRng};
use herm_types::{IdSource, Rng as _, Timestamp};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::RwLock;
use tower::ServiceExt as _;

use crate::contract;

/// The server's limit for the size of a file. It is small, so that tests can exceed it.
pub(crate) const MAX_FILE_BYTES: u64 = 1024 * 1024;

pub(crate) struct World {
    pub(crate) router: Router,
    pub(crate) app: App,
    pub(crate) store: Store,
    pub(crate) sealer: Sealer,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) ids: IdSource,
    /// A key with read and write access to deployments of the account `default`.
    pub(crate) writer: String,
    /// A key with read access to deployments of the account `default`.
    pub(crate) reader: String,
    /// A key of the account `default` with the scope `admin`, which also gives access to keys and secrets.
    pub(crate) admin: String,
    /// A key of another account with the scope `admin`.
    pub(crate) other_account: String,
    pub(crate) workspaces_dir: PathBuf,
    /// A lock with which tests delay requests. While a test holds it for writing, every probe of a sandbox engine
    /// blocks. A request that creates the first deployment then blocks too, because it probes an engine.
    pub(crate) probe_gate: Arc<RwLock<()>>,
    _dir: tempfile::TempDir,
}

pub(crate) struct ApiResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl ApiResponse {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.bytes)))
    }

    /// Returns the HTTP status and the error code of the response.
    pub(crate) fn status_and_code(&self) -> (u16, String) {
        (self.status.as_u16(), self.json()["error"].as_str().unwrap_or_default().to_owned())
    }

    /// Returns true if this is the stored response of an earlier request with the same idempotency key.
    pub(crate) fn is_replayed(&self) -> bool {
        self.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
    }

    /// Returns the paths of the field errors in the response.
    pub(crate) fn error_paths(&self) -> Vec<String> {
        let details = self.json()["details"].as_array().cloned().unwrap_or_default();
        details.iter().map(|error| error["path"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// An image that no engine has.
pub(crate) const ABSENT_IMAGE: &str = "registry.example/absent:1";

/// A fake of the sandbox engines. Only the engines in `available` are available.
struct FakeEngines {
    available: &'static [SandboxType],
    probe_gate: Arc<RwLock<()>>,
}

#[async_trait]
impl herm_app::Engines for FakeEngines {
    async fn probe(&self, engine: SandboxType, image: Option<&str>) -> Result<bool, String> {
        let _gate = self.probe_gate.read().await;
        if self.available.contains(&engine) {
            Ok(image.is_none_or(|image| image != ABSENT_IMAGE))
        } else {
            Err("the engine is not running; start it".to_owned())
        }
    }

    async fn has_own_users(&self, engine: SandboxType) -> bool {
        engine != SandboxType::Local
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(SandboxFallback::Local, &[]).await
    }

    /// Creates a server for which the given engines are available in addition to `local`.
    pub(crate) async fn with(fallback: SandboxFallback, engines: &'static [SandboxType]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_800_000_000_000_000)));
        let ids = IdSource::new(Arc::clone(&clock) as _, Arc::new(SystemRng));
        let store = Store::open(herm_store::Options {
            location: Location::Sqlite(dir.path().to_owned()),
            clock: Arc::clone(&clock) as _,
            database_clock: DatabaseClock::FromOptions,
            migrate: true,
            exclusive: true,
        })
        .await
        .unwrap();
        let probe_gate = Arc::new(RwLock::new(()));
        let master_key = master_key::generate(&mut |bytes: &mut [u8]| SystemRng.fill(bytes));
        let settings = Settings {
            default_model: ModelName::parse("anthropic/claude-sonnet-4.5").unwrap(),
            providers: ["anthropic", "openai", "openrouter", "demo"].map(str::to_owned).to_vec(),
            docker_fallback: (fallback == SandboxFallback::Local).then_some(SandboxType::Local),
            workspaces: Workspaces::new(dir.path().join("workspaces")),
            snapshots: Snapshots::new(dir.path().join("snapshots")),
            quotas: Quotas::new(Arc::clone(&clock) as _),
            max_file_bytes: MAX_FILE_BYTES,
        };
        let sealer = Sealer::new(KeyRing::new(&master_key), Arc::new(SystemRng));
        // The server may send requests to localhost, because tests start web servers there.
        let private = PrivateTarget::Host("localhost".to_owned());
        let fetcher =
            Fetcher::new(vec![private].into(), herm_outbound::tls_client_config().unwrap()).unwrap();
        let app = App::new(
            store.clone(),
            ids.clone(),
            Arc::clone(&clock) as _,
            sealer.clone(),
            fetcher,
            Arc::new(FakeEngines { available: engines, probe_gate: Arc::clone(&probe_gate) }),
            settings,
        );
        let mut world = Self {
            router: router(app.clone(), Options::default()),
            app,
            store,
            sealer,
            clock,
            ids,
            writer: String::new(),
            reader: String::new(),
            admin: String::new(),
            other_account: String::new(),
            workspaces_dir: dir.path().join("workspaces"),
            probe_gate,
            _dir: dir,
        };
        world.writer = world.key("default", &[Scope::DeploymentsRead, Scope::DeploymentsWrite]).await;
        world.reader = world.key("default", &[Scope::DeploymentsRead]).await;
        world.admin = world.key("default", &[Scope::Admin]).await;
        world.other_account = world.key("other", &[Scope::Admin]).await;
        world
    }

    pub(crate) async fn key(&self, account: &str, scopes: &[Scope]) -> String {
        self.limited_key(NewKey {
            name: "test".to_owned(),
            account: account.to_owned(),
            scopes: scopes.to_vec(),
            deployment_id: None,
            customer_id: None,
            expires_at: None,
        })
        .await
        .0
    }

    pub(crate) async fn limited_key(&self, new: NewKey) -> (String, KeyInfo) {
        let (key, info) = keys::create(&self.store, &self.ids, &SystemRng, new).await.unwrap();
        (key.expose().to_owned(), info)
    }

    /// Sends a request to the server, and checks the response against the OpenAPI document.
    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.router.clone().oneshot(request).await.unwrap();
        contract::check(&method, &path, response).await
    }

    pub(crate) async fn call(
        &self,
        key: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> ApiResponse {
        let mut request = Request::builder().method(method).uri(path).header(HOST, "herm.example");
        if !key.is_empty() {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        let body = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        read(self.send(request.body(body).unwrap()).await).await
    }

    /// Sends a POST with the writer's key and with the idempotency key `key`.
    pub(crate) async fn post_once(&self, path: &str, key: &str, body: &Value) -> ApiResponse {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, "herm.example")
            .header(AUTHORIZATION, format!("Bearer {}", self.writer))
            .header(CONTENT_TYPE, "application/json")
            .header("idempotency-key", key);
        read(self.send(request.body(Body::from(body.to_string())).unwrap()).await).await
    }

    pub(crate) async fn get(&self, path: &str) -> ApiResponse {
        self.call(&self.writer, Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> ApiResponse {
        self.call(&self.writer, Method::POST, path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> ApiResponse {
        self.call(&self.writer, Method::PATCH, path, Some(body)).await
    }

    /// Creates a deployment in the account `default` and returns the response body.
    pub(crate) async fn deployment(&self) -> Value {
        let response = self.post("/v1/deployments", &minimal()).await;
        assert_eq!(response.status, StatusCode::CREATED, "{}", response.json());
        response.json()
    }

    /// Changes the status of a deployment from `provisioning` to `error`.
    pub(crate) async fn fail_provisioning(&self, deployment: &Value) {
        let id = deployment["deployment_id"].as_str().unwrap().parse().unwrap();
        let error = DeploymentError { code: "no_space".to_owned(), message: "No room.".to_owned() };
        let fail = self.store.transaction("fail", move |tx| {
            Box::pin(deployments::transition(tx, id, Transition::Fail(error)))
        });
        assert!(fail.await.unwrap(), "{deployment}");
    }

    /// Creates a browser token for the deployment, with all scopes that a token can have.
    pub(crate) async fn token(&self, deployment: &Value) -> String {
        let body = json!({"deployment_id": deployment["deployment_id"], "scopes": Scope::FOR_BROWSER_TOKENS});
        let response = self.post("/v1/tokens", &body).await;
        assert_eq!(response.status, StatusCode::CREATED, "{}", response.json());
        response.json()["token"].as_str().unwrap().to_owned()
    }

    /// Returns the path of a deployment's subresource.
    pub(crate) fn path(deployment: &Value, rest: &str) -> String {
        format!("/v1/deployments/{}{rest}", deployment["deployment_id"].as_str().unwrap())
    }
}

/// The setting that decides how the server handles requests for `docker` sandboxes if Docker is not available.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SandboxFallback {
    Local,
    Refuse,
}

pub(crate) async fn read(response: Response<Body>) -> ApiResponse {
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, 64 * 1024 * 1024).await.unwrap().to_vec();
    ApiResponse { status: parts.status, headers: parts.headers, bytes }
}

/// Returns a request body for `create_deployment` with only the required fields.
pub(crate) fn minimal() -> Value {
    json!({"customer_id": "acme", "name": "Ada", "system_prompt": "Be brief."})
}
