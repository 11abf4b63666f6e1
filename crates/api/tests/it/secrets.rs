//! Tests of `/v1/secrets`: creating, changing and deleting secrets. Values are never returned.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use herm_app::keys::NewKey;
use herm_types::key::Scope;
use herm_types::{AccountId, DeploymentId, SecretId};
use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::world::{ApiResponse, World, minimal};

const VALUE: &str = "sk-live-Zq8fP2mWn4Lx7Vt1";
const ROTATED: &str = "sk-live-Rr5kT9bYc3Hd6Gs0";

async fn call(world: &World, method: Method, path: &str, body: Option<&Value>) -> ApiResponse {
    world.call(&world.admin, method, path, body).await
}

async fn create(world: &World, body: &Value) -> ApiResponse {
    call(world, Method::POST, "/v1/secrets", Some(body)).await
}

async fn account_of(world: &World, key: &str) -> AccountId {
    world.app.authenticate(key).await.unwrap().account_id()
}

/// Returns the value of a secret of the account `default`, as an outgoing request of a deployment receives it.
async fn value_of(world: &World, secret_id: &str) -> String {
    let mut body = minimal();
    body["secrets"] = json!({"VALUE": secret_id});
    let deployment = world.post("/v1/deployments", &body).await.json();
    let deployment_id: DeploymentId = deployment["deployment_id"].as_str().unwrap().parse().unwrap();
    let bound = world
        .store
        .read("bound", move |tx| Box::pin(herm_store::placeholders::bound_secrets(tx, deployment_id)))
        .await
        .unwrap();
    let [bound] = <[_; 1]>::try_from(bound).unwrap();
    let value = herm_app::secrets::open_for(&world.store, &world.sealer, deployment_id, bound).await;
    let deleted = world.call(&world.admin, Method::DELETE, &World::path(&deployment, ""), None).await;
    assert_eq!(deleted.status, 200);
    value.unwrap().unwrap().expose_secret().to_owned()
}

#[tokio::test]
async fn a_secret_can_be_created_changed_and_deleted() {
    let world = World::new().await;
    let body = json!({"name": "Acme API", "value": VALUE, "secret_id": "sec_acme-API_1",
        "allowed_hosts": ["API.Acme.example", "*.acme.example:8443", "api.acme.example"], "inject": ["header", "body"]});
    let response = create(&world, &body).await;
    assert_eq!(response.status, 201, "{}", response.json());
    let mut expected = json!({"secret_id": "sec_acme-API_1", "name": "Acme API",
        "allowed_hosts": ["api.acme.example", "*.acme.example:8443"], "inject": ["header", "body"],
        "created_at": "2027-01-15T08:00:00.000000Z", "updated_at": "2027-01-15T08:00:00.000000Z"});
    assert_eq!(response.json(), expected);
    assert_eq!(create(&world, &body).await.status_and_code(), (409, "conflict".to_owned()));
    assert_eq!(value_of(&world, "sec_acme-API_1").await, VALUE);

    world.clock.advance_ms(1000);
    let path = "/v1/secrets/sec_acme-API_1";
    let patch = async |body: Value| call(&world, Method::PATCH, path, Some(&body)).await;
    assert_eq!(patch(json!({"name": "Acme API"})).await.json(), expected, "nothing has changed");
    expected["allowed_hosts"] = json!([]);
    expected["updated_at"] = "2027-01-15T08:00:01.000000Z".into();
    assert_eq!(patch(json!({"allowed_hosts": []})).await.json(), expected);
    assert_eq!(patch(json!({"value": ROTATED})).await.json(), expected);
    assert_eq!(value_of(&world, "sec_acme-API_1").await, ROTATED);
    assert_eq!(call(&world, Method::GET, "/v1/secrets", None).await.json()["data"], json!([expected]));

    let deleted = call(&world, Method::DELETE, path, None).await;
    assert_eq!(deleted.json(), json!({"secret_id": "sec_acme-API_1", "status": "deleted"}));
    assert_eq!(call(&world, Method::DELETE, path, None).await.status, 404);
    assert_eq!(patch(json!({"name": "x"})).await.status, 404);
}

#[tokio::test]
async fn the_id_is_generated_and_inject_defaults_to_header() {
    let world = World::new().await;
    let created = create(&world, &json!({"name": "n", "value": VALUE})).await.json();
    assert_eq!((&created["inject"], &created["allowed_hosts"]), (&json!(["header"]), &json!([])));
    assert!(created["secret_id"].as_str().unwrap().starts_with("sec_"));
    // Another account can create a secret with the same id, but cannot read the secret of this account.
    let same = json!({"name": "theirs", "value": "x", "secret_id": created["secret_id"]});
    assert_eq!(world.call(&world.other_account, Method::POST, "/v1/secrets", Some(&same)).await.status, 201);
    assert_eq!(value_of(&world, created["secret_id"].as_str().unwrap()).await, VALUE);
    let theirs = world.call(&world.other_account, Method::GET, "/v1/secrets", None).await.json();
    assert_eq!(theirs["data"].as_array().unwrap().len(), 1);
    assert_eq!(theirs["data"][0]["name"], "theirs");
}

#[tokio::test]
async fn all_field_errors_of_a_secret_are_reported_without_its_value() {
    let world = World::new().await;
    let body = json!({"name": 5, "value": "", "secret_id": VALUE, "inject": [],
        "allowed_hosts": ["https://acme.example/x", "*.example", "ok.example", 1], "values": VALUE});
    let response = create(&world, &body).await;
    assert_eq!(response.status_and_code(), (400, "validation_error".to_owned()));
    let expected = [
        "name",
        "value",
        "allowed_hosts[0]",
        "allowed_hosts[1]",
        "allowed_hosts[3]",
        "inject",
        "secret_id",
        "values",
    ];
    assert_eq!(response.error_paths(), expected);
    assert!(!String::from_utf8_lossy(&response.bytes).contains(VALUE));
    let large = json!({"name": "n", "value": "x".repeat(32_769), "inject": ["cookie"]});
    assert_eq!(create(&world, &large).await.error_paths(), ["value", "inject[0]"]);
    assert_eq!(create(&world, &json!({})).await.error_paths(), ["name", "value"]);
    let moved = json!({"secret_id": "sec_other"});
    create(&world, &json!({"name": "n", "value": "v", "secret_id": "sec_a"})).await;
    assert_eq!(
        call(&world, Method::PATCH, "/v1/secrets/sec_a", Some(&moved)).await.error_paths(),
        ["secret_id"]
    );
}

#[tokio::test]
async fn secrets_are_listed_newest_first_in_pages() {
    let world = World::new().await;
    let mut created = Vec::new();
    // The ids are chosen so that sorting by id gives a different order than sorting by creation time. Two secrets are
    // created at the same time.
    for (index, id) in ["sec_m", "sec_z", "sec_a", "sec_B", "sec_q"].into_iter().enumerate() {
        create(&world, &json!({"name": "n", "value": "v", "secret_id": id})).await;
        created.push(id);
        if index != 1 {
            world.clock.advance_ms(1);
        }
    }
    created.reverse();
    // The two secrets that were created at the same time are sorted by id.
    created.swap(2, 3);
    let (mut listed, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = call(&world, Method::GET, &format!("/v1/secrets?limit=2{cursor}"), None).await.json();
        listed.extend(
            page["data"].as_array().unwrap().iter().map(|s| s["secret_id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
        create(&world, &json!({"name": "n", "value": "v"})).await;
    }
    assert_eq!(listed, created);
    assert_eq!(call(&world, Method::GET, "/v1/secrets?cursor=sec_a", None).await.error_paths(), ["cursor"]);
}

#[tokio::test]
async fn a_secret_in_use_cannot_be_deleted_until_its_deployments_are() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let account_id = account_of(&world, &world.admin).await;
    let secret_id: SecretId = "sec_used".parse().unwrap();
    create(&world, &json!({"name": "n", "value": "v", "secret_id": "sec_used"})).await;
    let deployment_id = deployment["deployment_id"].as_str().unwrap().parse().unwrap();
    let missing = world
        .store
        .transaction("use", move |tx| {
            Box::pin(async move {
                herm_store::secrets::set_uses(tx, account_id, deployment_id, &[secret_id]).await
            })
        })
        .await
        .unwrap();
    assert_eq!(missing, None);
    let rejected = call(&world, Method::DELETE, "/v1/secrets/sec_used", None).await;
    assert_eq!(rejected.status_and_code(), (409, "conflict".to_owned()));
    let message = rejected.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains(deployment["deployment_id"].as_str().unwrap()), "{message}");
    world.call(&world.writer, Method::DELETE, &World::path(&deployment, ""), None).await;
    assert_eq!(call(&world, Method::DELETE, "/v1/secrets/sec_used", None).await.status, 200);
}

#[tokio::test]
async fn a_restricted_key_cannot_access_secrets() {
    let world = World::new().await;
    create(&world, &json!({"name": "n", "value": "v", "secret_id": "sec_a"})).await;
    let limited = NewKey {
        name: "limited".to_owned(),
        account: "default".to_owned(),
        scopes: vec![Scope::Admin],
        deployment_id: None,
        customer_id: Some("acme".to_owned()),
        expires_at: None,
    };
    let (key, _) = world.limited_key(limited).await;
    let body = json!({"name": "n", "value": "v"});
    let status =
        async |method, path, body: Option<&Value>| world.call(&key, method, path, body).await.status.as_u16();
    assert_eq!(status(Method::POST, "/v1/secrets", Some(&body)).await, 403);
    assert_eq!(status(Method::PATCH, "/v1/secrets/sec_a", Some(&body)).await, 404);
    assert_eq!(status(Method::DELETE, "/v1/secrets/sec_a", None).await, 404);
    assert_eq!(world.call(&key, Method::GET, "/v1/secrets", None).await.json()["data"], json!([]));
    assert_eq!(value_of(&world, "sec_a").await, "v");
}

/// A writer that collects the log output in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn collect_files(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect_files(&path, found) } else { found.push(path) }
    }
}

#[tokio::test]
async fn a_value_is_in_no_response_no_log_and_no_database_file() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .init();
    tracing::trace!("the log is written");
    let world = World::new().await;
    let mut responses = Vec::new();
    for body in [
        json!({"name": "n", "value": VALUE, "secret_id": "sec_a", "allowed_hosts": ["acme.example"]}),
        json!({"name": "n", "value": VALUE, "secret_id": "sec_a"}),
        json!({"name": "n", "value": VALUE, "secret_id": VALUE}),
        json!({"value": VALUE, "allowed_hosts": [VALUE]}),
    ] {
        responses.push(create(&world, &body).await);
        responses.push(call(&world, Method::PATCH, "/v1/secrets/sec_a", Some(&body)).await);
    }
    let rotated = json!({"value": ROTATED});
    responses.push(call(&world, Method::PATCH, "/v1/secrets/sec_a", Some(&rotated)).await);
    responses.push(call(&world, Method::PATCH, "/v1/secrets/sec_b", Some(&rotated)).await);
    responses.push(call(&world, Method::GET, "/v1/secrets", None).await);
    assert_eq!(value_of(&world, "sec_a").await, ROTATED);
    let mut files = Vec::new();
    collect_files(world.workspaces_dir.parent().unwrap(), &mut files);
    assert!(
        files.iter().any(|file| contains(&bytes_of(file), "sec_a")),
        "no file in {files:?} has the secret's id"
    );
    let log = log.0.lock().unwrap().clone();
    assert!(contains(&log, "the log is written"));
    for value in [VALUE, ROTATED] {
        for response in &responses {
            assert!(!contains(&response.bytes, value), "{}", String::from_utf8_lossy(&response.bytes));
        }
        assert!(!contains(&log, value), "the value is in the log");
        for file in &files {
            assert!(!contains(&bytes_of(file), value), "the value is in {}", file.display());
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the database files are not workspace files")]
fn bytes_of(file: &Path) -> Vec<u8> {
    std::fs::read(file).unwrap()
}
