//! `Idempotency-Key`: every POST may be sent again and acts once.

use axum::body::Body;
use herm_app::Caller;
use herm_app::idempotency::{Answer as Kept, Claim, Claimed, KEPT_MS, Reply, Request as Asked};
use herm_store::idempotent_requests::{Record, RequestKey, find_and_lock};
use herm_types::key::Scope;
use http::{Method, Request};
use serde_json::{Value, json};

use crate::access::{Row, Scene, table};
use crate::world::{Answer, World, minimal, read};

const DEPLOYMENTS: &str = "/v1/deployments";

async fn deployments(world: &World) -> usize {
    world.get(DEPLOYMENTS).await.json()["data"].as_array().unwrap().len()
}

async fn caller(world: &World) -> Caller {
    world.app.authenticate(&world.writer).await.unwrap()
}

/// What is stored of a request of the writer's.
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

/// Claims a request of the writer's as a server does that then dies.
async fn claim(world: &World, path: &str, key: &str, body: &str) -> Claim {
    let asked = Asked { method: "POST", path, query: "", idempotency_key: key, body: body.as_bytes() };
    match world.app.claim(&caller(world).await, asked).await.unwrap() {
        Claimed::New(claim) => claim,
        _ => panic!("{key} is claimed already"),
    }
}

#[tokio::test]
async fn every_post_of_the_document_acts_once() {
    let world = World::new().await;
    let scene = Scene::new(&world).await;
    let admin = world.key("default", &[Scope::Admin]).await;
    let document: Value = serde_json::from_str(&herm_api::openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap().values();
    let mut posts: Vec<&Value> = paths.filter_map(|operations| operations.get("post")).collect();
    // What waits is answered before a message comes, which would answer it.
    posts.sort_by_key(|operation| operation["operationId"] != "answer_steering");
    for operation in posts {
        let id = operation["operationId"].as_str().unwrap();
        let headers = operation["parameters"].as_array().unwrap();
        assert!(headers.iter().any(|header| header["name"] == "Idempotency-Key"), "{id} does not say so");
        let row = table().into_iter().find(|row| row.operation == id).unwrap();
        let send = async |body: Option<&Value>| {
            let request = Request::builder()
                .method(Method::POST)
                .uri(scene.path(&row))
                .header("authorization", format!("Bearer {admin}"))
                .header("content-type", "application/json")
                .header("idempotency-key", format!("walk-{id}"));
            let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
            read(world.send(request.body(body).unwrap()).await).await
        };
        if id == "retry_deployment" {
            scene.break_deployment(&world).await;
        }
        let body = scene.body(&row).map(|body| serde_json::from_str::<Value>(&body).unwrap());
        acts_once(&row, body.as_ref(), send).await;
    }
}

async fn acts_once(row: &Row, body: Option<&Value>, send: impl AsyncFn(Option<&Value>) -> Answer) {
    let id = row.operation;
    let first = send(body).await;
    assert!(first.status.is_success() && !first.is_replayed(), "{id}: {}", first.json());
    let second = send(body).await;
    assert!(
        second.is_replayed(),
        "{id} is not replayed: does its use case commit the reply? {}",
        second.json()
    );
    assert_eq!((second.status, second.bytes), (first.status, first.bytes), "{id}");
    assert_eq!(second.headers["content-type"], first.headers["content-type"], "{id}");
    assert_ne!(second.headers["x-request-id"], first.headers["x-request-id"], "{id}");
    let other = send(Some(&json!({"another": "body"}))).await;
    assert_eq!(other.refusal(), (409, "idempotency_conflict".to_owned()), "{id}");
}

/// The key of a request that nobody can make says nothing about it.
#[tokio::test]
async fn a_path_without_the_method_says_so_to_whoever_asks() {
    let world = World::new().await;
    for key in ["nonsense", &world.writer] {
        let request = Request::builder()
            .method(Method::POST)
            .uri("/openapi.json")
            .header("authorization", format!("Bearer {key}"))
            .header("idempotency-key", "once");
        let answer = read(world.send(request.body(Body::empty()).unwrap()).await).await;
        assert_eq!(answer.refusal(), (405, "method_not_allowed".to_owned()), "{key}");
    }
    let request = Request::builder().method(Method::POST).uri(DEPLOYMENTS).header("idempotency-key", "once");
    let answer = read(world.send(request.body(Body::empty()).unwrap()).await).await;
    assert_eq!(answer.refusal(), (401, "unauthorized".to_owned()));
}

#[tokio::test]
async fn two_at_once_have_one_effect() {
    let world = World::new().await;
    let body = minimal();
    let both = futures_util::future::join_all((0..8).map(|_| world.post_once(DEPLOYMENTS, "same", &body)));
    for answer in both.await {
        match answer.status.as_u16() {
            201 => {}
            409 => {
                assert_eq!(answer.json()["error"], "conflict");
                assert_eq!(answer.headers["retry-after"], "1");
            }
            other => panic!("{other}: {}", answer.json()),
        }
    }
    assert_eq!(deployments(&world).await, 1);
    assert!(world.post_once(DEPLOYMENTS, "same", &body).await.is_replayed());
}

#[tokio::test]
async fn a_request_whose_server_died_before_its_effect_may_be_sent_again_after_the_lease() {
    let world = World::new().await;
    let body = minimal();
    let _lost = claim(&world, DEPLOYMENTS, "lost", &body.to_string()).await;
    world.clock.advance_ms(59_999);
    let early = world.post_once(DEPLOYMENTS, "lost", &body).await;
    assert_eq!(early.refusal(), (409, "conflict".to_owned()));
    let other = world.post_once(DEPLOYMENTS, "lost", &json!({})).await;
    assert_eq!(other.refusal(), (409, "idempotency_conflict".to_owned()));
    world.clock.advance_ms(1);
    let answer = world.post_once(DEPLOYMENTS, "lost", &body).await;
    assert_eq!((answer.status.as_u16(), answer.is_replayed()), (201, false));
    assert_eq!(deployments(&world).await, 1);
}

#[tokio::test]
async fn who_lost_the_claim_has_no_effect_any_more() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let path = World::path(&deployment, "/threads");
    let body = json!({"title": "Plans"});
    let slow = claim(&world, &path, "slow", &body.to_string()).await;
    world.clock.advance_ms(60_000);
    assert_eq!(world.post_once(&path, "slow", &body).await.status, 201);
    let reply = Reply::new(Some(slow.clone()), 201, |made: &herm_types::thread::ThreadInfo| made.clone());
    let deployment_id = deployment["deployment_id"].as_str().unwrap().parse().unwrap();
    let caller = caller(&world).await;
    let late = herm_app::threads::create(&world.app, &caller, deployment_id, None, reply).await;
    assert!(
        matches!(late.unwrap_err(), herm_app::Error::Refused(error) if error.message.contains("took over"))
    );
    let threads = world.get(&path).await.json()["data"].as_array().unwrap().len();
    assert_eq!(threads, 2, "the default one, and the one that was made once");
    // Nor can it put another answer in the place of the right one, or take it away.
    assert!(slow.clone().record(Kept { status: 400, body: Vec::new() }).await.is_err());
    slow.release().await.unwrap();
    assert_eq!(world.post_once(&path, "slow", &body).await.status, 201);
}

#[tokio::test]
async fn a_client_that_goes_away_finds_what_it_began() {
    let world = World::new().await;
    let body = minimal();
    // It cannot end before it goes away: its request waits for an engine.
    let held = world.looks.write().await;
    let mut gone = Box::pin(world.post_once(DEPLOYMENTS, "gone", &body));
    while record(&world, DEPLOYMENTS, "gone").await.is_none() {
        assert!(futures_util::poll!(&mut gone).is_pending(), "it ended before it could go away");
        tokio::task::yield_now().await;
    }
    drop(gone);
    drop(held);
    while record(&world, DEPLOYMENTS, "gone").await.is_none_or(|record| record.answer.is_none()) {
        tokio::task::yield_now().await;
    }
    assert!(world.post_once(DEPLOYMENTS, "gone", &body).await.is_replayed());
    assert_eq!(deployments(&world).await, 1);
}

#[tokio::test]
async fn lasting_refusals_are_replayed_and_others_are_tried_again() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    for (path, status) in [(DEPLOYMENTS, 400), ("/v1/deployments/dep_nothing/messages", 404)] {
        let first = world.post_once(path, "lasting", &json!({"x": 1})).await;
        let second = world.post_once(path, "lasting", &json!({"x": 1})).await;
        assert_eq!((first.status.as_u16(), first.is_replayed()), (status, false));
        assert_eq!((second.status, second.is_replayed()), (first.status, true));
        assert_eq!(second.bytes, first.bytes);
    }
    // The state may change: a run that has ended stays so, but nobody knows of which kind a conflict is.
    let sent = world.post(&World::path(&deployment, "/messages"), &json!({"content": "Hi."})).await.json();
    let path = World::path(&deployment, &format!("/runs/{}/cancel", sent["run_id"].as_str().unwrap()));
    world.app.drain();
    let refused = world.post_once(&World::path(&deployment, "/threads"), "later", &json!({})).await;
    assert_eq!(refused.refusal().0, 503);
    assert_eq!(record(&world, &World::path(&deployment, "/threads"), "later").await, None);
    // What needs no new work goes on.
    assert_eq!(world.post_once(&path, "cancel", &json!({})).await.status, 202);
}

#[tokio::test]
async fn neither_401_nor_403_nor_413_nor_415_leaves_a_record() {
    let mut world = World::new().await;
    let reader = world.reader.clone();
    let writer = std::mem::replace(&mut world.writer, reader);
    assert_eq!(world.post_once(DEPLOYMENTS, "key", &minimal()).await.refusal().0, 403);
    assert_eq!(record(&world, DEPLOYMENTS, "key").await, None);
    world.writer = writer;
    let huge = json!({"name": "x".repeat(1024 * 1024)});
    assert_eq!(world.post_once(DEPLOYMENTS, "key", &huge).await.refusal().0, 413);
    assert_eq!(record(&world, DEPLOYMENTS, "key").await, None);
    let text = Request::builder()
        .method(Method::POST)
        .uri(DEPLOYMENTS)
        .header("authorization", format!("Bearer {}", world.writer))
        .header("idempotency-key", "key");
    let answer = read(world.send(text.body(Body::from(minimal().to_string())).unwrap()).await).await;
    assert_eq!(answer.refusal().0, 415);
    assert_eq!(record(&world, DEPLOYMENTS, "key").await, None);
    world.writer = "herm_sk_nonsense".to_owned();
    assert_eq!(world.post_once(DEPLOYMENTS, "key", &minimal()).await.refusal().0, 401);
}

#[tokio::test]
async fn a_key_belongs_to_its_caller_and_its_path() {
    let mut world = World::new().await;
    let first = world.post_once(DEPLOYMENTS, "mine", &minimal()).await.json();
    let threads = World::path(&first, "/threads");
    assert_eq!(world.post_once(&threads, "mine", &json!({})).await.status, 201);
    world.writer = world.key("default", &[Scope::DeploymentsWrite]).await;
    let second = world.post_once(DEPLOYMENTS, "mine", &minimal()).await;
    assert_eq!((second.status.as_u16(), second.is_replayed()), (201, false));
    assert_ne!(second.json()["deployment_id"], first["deployment_id"]);
    // With a query it is another request.
    let other = world.post_once(&format!("{DEPLOYMENTS}?x=1"), "mine", &minimal()).await;
    assert_eq!(other.refusal(), (409, "idempotency_conflict".to_owned()));
}

#[tokio::test]
async fn a_key_is_free_again_after_a_day() {
    let world = World::new().await;
    let first = world.post_once(DEPLOYMENTS, "daily", &minimal()).await.json();
    world.clock.advance_ms(KEPT_MS - 1);
    assert!(world.post_once(DEPLOYMENTS, "daily", &minimal()).await.is_replayed());
    world.clock.advance_ms(1);
    let mut other = minimal();
    other["name"] = "Bea".into();
    let second = world.post_once(DEPLOYMENTS, "daily", &other).await;
    assert_eq!((second.status.as_u16(), second.is_replayed()), (201, false));
    assert_ne!(second.json()["deployment_id"], first["deployment_id"]);
}

#[tokio::test]
async fn a_key_that_is_not_1_to_255_visible_characters_is_refused() {
    let world = World::new().await;
    let long = "k".repeat(256);
    for key in ["", " ", "a b", "schl\u{fc}ssel", "tab\there", &long] {
        let answer = world.post_once(DEPLOYMENTS, key, &minimal()).await;
        assert_eq!(answer.refusal(), (400, "validation_error".to_owned()), "{key:?}");
        assert!(answer.json()["message"].as_str().unwrap().contains("Idempotency-Key"));
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
    assert_eq!(world.post_once(&long_path, "key", &json!({})).await.refusal().0, 404);
}

#[tokio::test]
async fn what_is_stored_shows_neither_the_body_nor_the_answer() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let world = World::new().await;
    world.post_once(DEPLOYMENTS, "sealed", &minimal()).await;
    let record = record(&world, DEPLOYMENTS, "sealed").await.unwrap();
    let (status, response) = record.answer.unwrap();
    assert_eq!(status, 201);
    let bytes = STANDARD.decode(response).unwrap();
    assert!(!bytes.windows(4).any(|part| part == b"acme"));
    let hash = herm_crypto::sha256([b"\0".as_slice(), minimal().to_string().as_bytes()]);
    assert!(!STANDARD.decode(record.body_hash).unwrap().windows(32).any(|part| part == hash));
}
