//! `/v1/secrets`: kept, rotated, never given back.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use herm_app::keys::NewKey;
use herm_types::key::Scope;
use herm_types::{AccountId, SecretId};
use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::world::{Answer, World};

const VALUE: &str = "sk-live-Zq8fP2mWn4Lx7Vt1";
const ROTATED: &str = "sk-live-Rr5kT9bYc3Hd6Gs0";

async fn call(world: &World, method: Method, path: &str, body: Option<&Value>) -> Answer {
    world.call(&world.admin, method, path, body).await
}

async fn create(world: &World, body: &Value) -> Answer {
    call(world, Method::POST, "/v1/secrets", Some(body)).await
}

async fn account_of(world: &World, key: &str) -> AccountId {
    world.app.authenticate(key).await.unwrap().account_id()
}

async fn value_of(world: &World, secret_id: &str) -> String {
    let account_id = account_of(world, &world.admin).await;
    let secret_id: SecretId = secret_id.parse().unwrap();
    let (_, value) = herm_app::secrets::open(&world.app, account_id, &secret_id).await.unwrap().unwrap();
    value.expose_secret().to_owned()
}

#[tokio::test]
async fn a_secret_is_made_changed_and_deleted() {
    let world = World::new().await;
    let body = json!({"name": "Acme API", "value": VALUE, "secret_id": "sec_acme-API_1",
        "allowed_hosts": ["API.Acme.example", "*.acme.example:8443", "api.acme.example"], "inject": ["header", "body"]});
    let answer = create(&world, &body).await;
    assert_eq!(answer.status, 201, "{}", answer.json());
    let mut expected = json!({"secret_id": "sec_acme-API_1", "name": "Acme API",
        "allowed_hosts": ["api.acme.example", "*.acme.example:8443"], "inject": ["header", "body"],
        "created_at": "2027-01-15T08:00:00.000000Z", "updated_at": "2027-01-15T08:00:00.000000Z"});
    assert_eq!(answer.json(), expected);
    assert_eq!(create(&world, &body).await.refusal(), (409, "conflict".to_owned()));
    assert_eq!(value_of(&world, "sec_acme-API_1").await, VALUE);

    world.clock.advance_ms(1000);
    let path = "/v1/secrets/sec_acme-API_1";
    let patch = async |body: Value| call(&world, Method::PATCH, path, Some(&body)).await;
    assert_eq!(patch(json!({"name": "Acme API"})).await.json(), expected, "nothing is changed");
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
async fn an_id_is_made_and_the_header_is_the_default() {
    let world = World::new().await;
    let made = create(&world, &json!({"name": "n", "value": VALUE})).await.json();
    assert_eq!((&made["inject"], &made["allowed_hosts"]), (&json!(["header"]), &json!([])));
    assert!(made["secret_id"].as_str().unwrap().starts_with("sec_"));
    // Another account may choose the same id, and sees nothing of this one's.
    let same = json!({"name": "theirs", "value": "x", "secret_id": made["secret_id"]});
    assert_eq!(world.call(&world.stranger, Method::POST, "/v1/secrets", Some(&same)).await.status, 201);
    assert_eq!(value_of(&world, made["secret_id"].as_str().unwrap()).await, VALUE);
    let theirs = world.call(&world.stranger, Method::GET, "/v1/secrets", None).await.json();
    assert_eq!(theirs["data"].as_array().unwrap().len(), 1);
    assert_eq!(theirs["data"][0]["name"], "theirs");
}

#[tokio::test]
async fn all_faults_of_a_secret_are_told_at_once_and_none_repeats_it() {
    let world = World::new().await;
    let body = json!({"name": 5, "value": "", "secret_id": VALUE, "inject": [],
        "allowed_hosts": ["https://acme.example/x", "*.example", "ok.example", 1], "values": VALUE});
    let answer = create(&world, &body).await;
    assert_eq!(answer.refusal(), (400, "validation_error".to_owned()));
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
    assert_eq!(answer.faults(), expected);
    assert!(!String::from_utf8_lossy(&answer.bytes).contains(VALUE));
    let large = json!({"name": "n", "value": "x".repeat(32_769), "inject": ["cookie"]});
    assert_eq!(create(&world, &large).await.faults(), ["value", "inject[0]"]);
    assert_eq!(create(&world, &json!({})).await.faults(), ["name", "value"]);
    let moved = json!({"secret_id": "sec_other"});
    create(&world, &json!({"name": "n", "value": "v", "secret_id": "sec_a"})).await;
    assert_eq!(call(&world, Method::PATCH, "/v1/secrets/sec_a", Some(&moved)).await.faults(), ["secret_id"]);
}

#[tokio::test]
async fn secrets_are_listed_newest_first_page_by_page() {
    let world = World::new().await;
    let mut made = Vec::new();
    // Chosen ids say nothing of age; some are made in the same instant.
    for (index, id) in ["sec_m", "sec_z", "sec_a", "sec_B", "sec_q"].into_iter().enumerate() {
        create(&world, &json!({"name": "n", "value": "v", "secret_id": id})).await;
        made.push(id);
        if index != 1 {
            world.clock.advance_ms(1);
        }
    }
    made.reverse();
    // Those of one instant come by their ids.
    made.swap(2, 3);
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
    assert_eq!(listed, made);
    assert_eq!(call(&world, Method::GET, "/v1/secrets?cursor=sec_a", None).await.faults(), ["cursor"]);
}

#[tokio::test]
async fn a_secret_in_use_stays_until_its_deployments_are_gone() {
    let world = World::new().await;
    let made = world.deployment().await;
    let account_id = account_of(&world, &world.admin).await;
    let secret_id: SecretId = "sec_used".parse().unwrap();
    create(&world, &json!({"name": "n", "value": "v", "secret_id": "sec_used"})).await;
    let deployment_id = made["deployment_id"].as_str().unwrap().parse().unwrap();
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
    let refused = call(&world, Method::DELETE, "/v1/secrets/sec_used", None).await;
    assert_eq!(refused.refusal(), (409, "conflict".to_owned()));
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains(made["deployment_id"].as_str().unwrap()), "{message}");
    world.call(&world.writer, Method::DELETE, &World::path(&made, ""), None).await;
    assert_eq!(call(&world, Method::DELETE, "/v1/secrets/sec_used", None).await.status, 200);
}

#[tokio::test]
async fn a_limited_key_reaches_no_secret() {
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

/// A log that is kept in memory.
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

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn files_below(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

#[tokio::test]
async fn a_value_is_found_in_no_response_no_log_and_no_byte_of_the_database() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .init();
    tracing::trace!("the log is written");
    let world = World::new().await;
    let mut answers = Vec::new();
    for body in [
        json!({"name": "n", "value": VALUE, "secret_id": "sec_a", "allowed_hosts": ["acme.example"]}),
        json!({"name": "n", "value": VALUE, "secret_id": "sec_a"}),
        json!({"name": "n", "value": VALUE, "secret_id": VALUE}),
        json!({"value": VALUE, "allowed_hosts": [VALUE]}),
    ] {
        answers.push(create(&world, &body).await);
        answers.push(call(&world, Method::PATCH, "/v1/secrets/sec_a", Some(&body)).await);
    }
    let rotated = json!({"value": ROTATED});
    answers.push(call(&world, Method::PATCH, "/v1/secrets/sec_a", Some(&rotated)).await);
    answers.push(call(&world, Method::PATCH, "/v1/secrets/sec_b", Some(&rotated)).await);
    answers.push(call(&world, Method::GET, "/v1/secrets", None).await);
    assert_eq!(value_of(&world, "sec_a").await, ROTATED);
    let mut files = Vec::new();
    files_below(world.workspaces_dir.parent().unwrap(), &mut files);
    assert!(files.iter().any(|file| holds(&bytes_of(file), "sec_a")), "the secret is in {files:?}");
    let log = log.0.lock().unwrap().clone();
    assert!(holds(&log, "the log is written"));
    for value in [VALUE, ROTATED] {
        for answer in &answers {
            assert!(!holds(&answer.bytes, value), "{}", String::from_utf8_lossy(&answer.bytes));
        }
        assert!(!holds(&log, value), "it is in the log");
        for file in &files {
            assert!(!holds(&bytes_of(file), value), "it is in {}", file.display());
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the database's files are no workspace's")]
fn bytes_of(file: &Path) -> Vec<u8> {
    std::fs::read(file).unwrap()
}
