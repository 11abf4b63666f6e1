//! Tests of `Idempotency-Key`: a repeated POST takes effect once and gets the same response.

use axum::body::Body;
use herm_app::Caller;
use herm_app::idempotency::{
    Claim, ClaimOutcome, RECORD_LIFETIME_MS, Reply, Request as ClaimRequest, StoredResponse,
};
use herm_store::idempotent_requests::{Record, RequestKey, find_and_lock};
use herm_types::key::Scope;
use http::{Method, Request};
use serde_json::{Value, json};

use crate::access::{Fixture, Row, table};
use crate::world::{ApiResponse, World, minimal, read};

const DEPLOYMENTS: &str = "/v1/deployments";

async fn deployments(world: &World) -> usize {
    world.get(DEPLOYMENTS).await.json()["data"].as_array().unwrap().len()
}

async fn caller(world: &World) -> Caller {
    world.app.authenticate(&world.writer).await.unwrap()
}

/// Reads an idempotency record from the database: the record of a POST with the writer's API key and the idempotency
/// key `key`. Returns `None` if there is none.
async fn record(world: &World, path: &str, key: &str) -> Option<Record> {
    let key = RequestKey {
        key_id: caller(world).await.key().key_id,
        method: "POST".to_owned(),
        path: path.to_owned(),
        idempotency_key: key.to_owned(),
    };
    let read = world
        .store
        .read("find_record", move |tx| Box::pin(async move { find_and_lock(tx, &key).await }))
        .await;
    read.unwrap()
}

/// Claims the idempotency key `key` for a POST with the writer's API key, but does not execute the request. Simulates a
/// server that crashes during the request.
async fn claim(world: &World, path: &str, key: &str, body: &str) -> Claim {
    let request =
        ClaimRequest { method: "POST", path, query: "", idempotency_key: key, body: body.as_bytes() };
    match world.app.claim(&caller(world).await, request).await.unwrap() {
        ClaimOutcome::New(claim) => claim,
        _ => panic!("{key} is claimed already"),
    }
}

#[tokio::test]
async fn every_post_of_the_document_is_idempotent() {
    let world = World::new().await;
    let mut fixture = Fixture::new(&world).await;
    let admin = world.key("default", &[Scope::Admin]).await;
    let document: Value = serde_json::from_str(&herm_api::openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap().values();
    let mut posts: Vec<&Value> = paths.filter_map(|operations| operations.get("post")).collect();
    // `answer_steering` must run before `send_message`, because a message would answer the steering request.
    // `retry_deployment` must run last, because it needs another deployment.
    let order = ["answer_steering", "retry_deployment"].map(Some);
    posts.sort_by_key(|operation| {
        let id = operation["operationId"].as_str();
        (id != order[0], id == order[1])
    });
    for operation in posts {
        let id = operation["operationId"].as_str().unwrap();
        let headers = operation["parameters"].as_array().unwrap();
        assert!(
            headers.iter().any(|header| header["name"] == "Idempotency-Key"),
            "{id} does not document Idempotency-Key"
        );
        let row = table().into_iter().find(|row| row.operation == id).unwrap();
        if id == "retry_deployment" {
            fixture.fail_provisioning(&world).await;
        }
        let send = async |body: Option<&Value>| {
            let request = Request::builder()
                .method(Method::POST)
                .uri(fixture.path(&row))
                .header("authorization", format!("Bearer {admin}"))
                .header("content-type", "application/json")
                .header("idempotency-key", format!("walk-{id}"));
            let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
            read(world.send(request.body(body).unwrap()).await).await
        };
        let body = fixture.body(&row).map(|body| serde_json::from_str::<Value>(&body).unwrap());
        assert_idempotent(&row, body.as_ref(), send).await;
    }
}

async fn assert_idempotent(
    row: &Row,
    body: Option<&Value>,
    send: impl AsyncFn(Option<&Value>) -> ApiResponse,
) {
    let id = row.operation;
    let first = send(body).await;
    assert!(first.status.is_success() && !first.is_replayed(), "{id}: {}", first.json());
    let second = send(body).await;
    assert!(
        second.is_replayed(),
        "{id} is not replayed; does its use case commit the reply? {}",
        second.json()
    );
    assert_eq!((second.status, second.bytes), (first.status, first.bytes), "{id}");
    assert_eq!(second.headers["content-type"], first.headers["content-type"], "{id}");
    assert_ne!(second.headers["x-request-id"], first.headers["x-request-id"], "{id}");
    let other = send(Some(&json!({"another": "body"}))).await;
    assert_eq!(other.status_and_code(), (409, "idempotency_conflict".to_owned()), "{id}");
}

/// A POST to a path that has no POST operation gets 405, even with an idempotency key.
#[tokio::test]
async fn a_path_without_post_responds_405_despite_an_idempotency_key() {
    let world = World::new().await;
    for key in ["nonsense", &world.writer] {
        let request = Request::builder()
            .method(Method::POST)
            .uri("/openapi.json")
            .header("authorization", format!("Bearer {key}"))
            .header("idempotency-key", "once");
        let response = read(world.send(request.body(Body::empty()).unwrap()).await).await;
        assert_eq!(response.status_and_code(), (405, "method_not_allowed".to_owned()), "{key}");
    }
    let request = Request::builder().method(Method::POST).uri(DEPLOYMENTS).header("idempotency-key", "once");
    let response = read(world.send(request.body(Body::empty()).unwrap()).await).await;
    assert_eq!(response.status_and_code(), (401, "unauthorized".to_owned()));
}

#[tokio::test]
async fn concurrent_requests_with_the_same_key_have_one_effect() {
    let world = World::new().await;
    let body = minimal();
    let requests =
        futures_util::future::join_all((0..8).map(|_| world.post_once(DEPLOYMENTS, "same", &body)));
    for response in requests.await {
        match response.status.as_u16() {
            201 => {}
            409 => {
                assert_eq!(response.json()["error"], "conflict");
                assert_eq!(response.headers["retry-after"], "1");
            }
            other => panic!("{other}: {}", response.json()),
        }
    }
    assert_eq!(deployments(&world).await, 1);
    assert!(world.post_once(DEPLOYMENTS, "same", &body).await.is_replayed());
}

#[tokio::test]
async fn a_request_whose_server_crashed_before_its_effect_can_be_retried_after_the_lease() {
    let world = World::new().await;
    let body = minimal();
    let _lost_claim = claim(&world, DEPLOYMENTS, "lost", &body.to_string()).await;
    world.clock.advance_ms(59_999);
    let early = world.post_once(DEPLOYMENTS, "lost", &body).await;
    assert_eq!(early.status_and_code(), (409, "conflict".to_owned()));
    let other = world.post_once(DEPLOYMENTS, "lost", &json!({})).await;
    assert_eq!(other.status_and_code(), (409, "idempotency_conflict".to_owned()));
    world.clock.advance_ms(1);
    let response = world.post_once(DEPLOYMENTS, "lost", &body).await;
    assert_eq!((response.status.as_u16(), response.is_replayed()), (201, false));
    assert_eq!(deployments(&world).await, 1);
}

#[tokio::test]
async fn a_request_that_lost_its_claim_has_no_effect() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let path = World::path(&deployment, "/threads");
    let body = json!({"title": "Plans"});
    let slow = claim(&world, &path, "slow", &body.to_string()).await;
    world.clock.advance_ms(60_000);
    assert_eq!(world.post_once(&path, "slow", &body).await.status, 201);
    let reply = Reply::new(Some(slow.clone()), 201, |thread: &herm_types::thread::ThreadInfo| thread.clone());
    let deployment_id = deployment["deployment_id"].as_str().unwrap().parse().unwrap();
    let caller = caller(&world).await;
    let late = herm_app::threads::create(&world.app, &caller, deployment_id, None, reply).await;
    assert!(
        matches!(late.unwrap_err(), herm_app::Error::Rejected(error) if error.message.contains("took over"))
    );
    let threads = world.get(&path).await.json()["data"].as_array().unwrap().len();
    assert_eq!(threads, 2, "the default thread and the new one");
    // The claim of the slow request has expired, and the second request has stored its response. The slow request can
    // neither overwrite nor remove this response.
    assert!(slow.clone().record(StoredResponse { status: 400, body: Vec::new() }).await.is_err());
    slow.release().await.unwrap();
    assert_eq!(world.post_once(&path, "slow", &body).await.status, 201);
}

#[tokio::test]
async fn a_request_completes_after_its_client_disconnects() {
    let world = World::new().await;
    let body = minimal();
    // The request probes a sandbox engine. The test blocks the probe, so that the client disconnects before the request
    // completes.
    let probe_gate = world.probe_gate.write().await;
    let mut request = Box::pin(world.post_once(DEPLOYMENTS, "gone", &body));
    while record(&world, DEPLOYMENTS, "gone").await.is_none() {
        assert!(
            futures_util::poll!(&mut request).is_pending(),
            "the request completed before the client disconnected"
        );
        tokio::task::yield_now().await;
    }
    drop(request);
    drop(probe_gate);
    while record(&world, DEPLOYMENTS, "gone").await.is_none_or(|record| record.response.is_none()) {
        tokio::task::yield_now().await;
    }
    assert!(world.post_once(DEPLOYMENTS, "gone", &body).await.is_replayed());
    assert_eq!(deployments(&world).await, 1);
}

#[tokio::test]
async fn permanent_errors_are_replayed_and_other_errors_are_retried() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    for (path, status) in [(DEPLOYMENTS, 400), ("/v1/deployments/dep_nothing/messages", 404)] {
        let first = world.post_once(path, "lasting", &json!({"x": 1})).await;
        let second = world.post_once(path, "lasting", &json!({"x": 1})).await;
        assert_eq!((first.status.as_u16(), first.is_replayed()), (status, false));
        assert_eq!((second.status, second.is_replayed()), (first.status, true));
        assert_eq!(second.bytes, first.bytes);
    }
    // A temporary error, such as a 503 during shutdown, is not stored, because a retry of the request may succeed.
    let sent = world.post(&World::path(&deployment, "/messages"), &json!({"content": "Hi."})).await.json();
    let path = World::path(&deployment, &format!("/runs/{}/cancel", sent["run_id"].as_str().unwrap()));
    world.app.drain();
    let rejected = world.post_once(&World::path(&deployment, "/threads"), "later", &json!({})).await;
    assert_eq!(rejected.status_and_code().0, 503);
    assert_eq!(record(&world, &World::path(&deployment, "/threads"), "later").await, None);
    // During shutdown, the server accepts requests that create no new work, such as a cancellation.
    assert_eq!(world.post_once(&path, "cancel", &json!({})).await.status, 202);
}

#[tokio::test]
async fn neither_401_nor_403_nor_413_nor_415_leaves_a_record() {
    let mut world = World::new().await;
    let reader = world.reader.clone();
    let writer = std::mem::replace(&mut world.writer, reader);
    assert_eq!(world.post_once(DEPLOYMENTS, "key", &minimal()).await.status_and_code().0, 403);
    assert_eq!(record(&world, DEPLOYMENTS, "key").await, None);
    world.writer = writer;
    let huge = json!({"name": "x".repeat(1024 * 1024)});
    assert_eq!(world.post_once(DEPLOYMENTS, "key", &huge).await.status_and_code().0, 413);
    assert_eq!(record(&world, DEPLOYMENTS, "key").await, None);
    let text = Request::builder()
        .method(Method::POST)
        .uri(DEPLOYMENTS)
        .header("authorization", format!("Bearer {}", world.writer))
        .header("idempotency-key", "key");
    let response = read(world.send(text.body(Body::from(minimal().to_string())).unwrap()).await).await;
    assert_eq!(response.status_and_code().0, 415);
    assert_eq!(record(&world, DEPLOYMENTS, "key").await, None);
    world.writer = "herm_sk_nonsense".to_owned();
    assert_eq!(world.post_once(DEPLOYMENTS, "key", &minimal()).await.status_and_code().0, 401);
}

#[tokio::test]
async fn an_idempotency_key_is_scoped_to_its_caller_and_path() {
    let mut world = World::new().await;
    let first = world.post_once(DEPLOYMENTS, "mine", &minimal()).await.json();
    let threads = World::path(&first, "/threads");
    assert_eq!(world.post_once(&threads, "mine", &json!({})).await.status, 201);
    world.writer = world.key("default", &[Scope::DeploymentsWrite]).await;
    let second = world.post_once(DEPLOYMENTS, "mine", &minimal()).await;
    assert_eq!((second.status.as_u16(), second.is_replayed()), (201, false));
    assert_ne!(second.json()["deployment_id"], first["deployment_id"]);
    // The query is part of the request, so the same key with a different query is a conflict.
    let other = world.post_once(&format!("{DEPLOYMENTS}?x=1"), "mine", &minimal()).await;
    assert_eq!(other.status_and_code(), (409, "idempotency_conflict".to_owned()));
}

#[tokio::test]
async fn an_idempotency_key_can_be_reused_after_a_day() {
    let world = World::new().await;
    let first = world.post_once(DEPLOYMENTS, "daily", &minimal()).await.json();
    world.clock.advance_ms(RECORD_LIFETIME_MS - 1);
    assert!(world.post_once(DEPLOYMENTS, "daily", &minimal()).await.is_replayed());
    world.clock.advance_ms(1);
    let mut other = minimal();
    other["name"] = "Bea".into();
    let second = world.post_once(DEPLOYMENTS, "daily", &other).await;
    assert_eq!((second.status.as_u16(), second.is_replayed()), (201, false));
    assert_ne!(second.json()["deployment_id"], first["deployment_id"]);
}

#[tokio::test]
async fn an_idempotency_key_that_is_not_1_to_255_visible_characters_is_rejected() {
    let world = World::new().await;
    let long = "k".repeat(256);
    for key in ["", " ", "a b", "schl\u{fc}ssel", "tab\there", &long] {
        let response = world.post_once(DEPLOYMENTS, key, &minimal()).await;
        assert_eq!(response.status_and_code(), (400, "validation_error".to_owned()), "{key:?}");
        assert!(response.json()["message"].as_str().unwrap().contains("Idempotency-Key"));
    }
    let twice = Request::builder()
        .method(Method::POST)
        .uri(DEPLOYMENTS)
        .header("authorization", format!("Bearer {}", world.writer))
        .header("idempotency-key", "a")
        .header("idempotency-key", "a");
    assert_eq!(world.send(twice.body(Body::empty()).unwrap()).await.status(), 400);
    assert_eq!(deployments(&world).await, 0);
    assert_eq!(world.post_once(DEPLOYMENTS, &long[..255], &minimal()).await.status, 201);
    let long_path = format!("/v1/deployments/{}/messages", "d".repeat(5000));
    assert_eq!(world.post_once(&long_path, "key", &json!({})).await.status_and_code().0, 404);
}

#[tokio::test]
async fn the_stored_record_encrypts_the_response_and_the_body_hash() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let world = World::new().await;
    world.post_once(DEPLOYMENTS, "sealed", &minimal()).await;
    let record = record(&world, DEPLOYMENTS, "sealed").await.unwrap();
    let (status, response) = record.response.unwrap();
    assert_eq!(status, 201);
    let bytes = STANDARD.decode(response).unwrap();
    assert!(!bytes.windows(4).any(|part| part == b"acme"));
    let hash = herm_crypto::sha256([b"\0".as_slice(), minimal().to_string().as_bytes()]);
    assert!(!STANDARD.decode(record.body_hash).unwrap().windows(32).any(|part| part == hash));
}
