//! Requests that are almost right, by the thousand: made from the OpenAPI document, then spoilt. The server refuses them
//! as documented, lives on, and grows no larger by them.
//!
//! `HERM_TEST_MUTATIONS` says how many, `HERM_TEST_SEED` which. A failure prints its seed and the request.

mod dice;
mod document;
mod request;
mod spoil;
mod wire;

use std::collections::BTreeMap;

use herm_testkit::process::Server;
use serde_json::{Value, json};

use crate::world::{World, text};
use dice::Dice;
use document::Document;
use request::{Ids, Request};
use wire::Response;

/// Requests of `make test`.
const USUAL_ROUNDS: usize = 2_000;
/// The first of so many parts of the rounds is for warming up: caches fill and pools open.
const WARM_UP_PART: usize = 4;
/// What the server may grow by after that, however many requests there are.
const MAX_GROWTH_KIB: u64 = 48 * 1024;

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spoilt_requests_are_refused_as_documented_and_harm_nothing() {
    let world = World::sqlite().await;
    let server = world.start().await;
    let rounds = usize::try_from(number("HERM_TEST_MUTATIONS", USUAL_ROUNDS as u64)).unwrap();
    let seed = number("HERM_TEST_SEED", 20_261_124);
    let mut dice = Dice::new(seed);
    let document = Document::of(&world.client_of(&server)).await;
    let mut ids = ground(&world, &server).await;
    let key = world.client.key().to_owned();
    let (mut statuses, mut warm_kib) = (BTreeMap::<u16, usize>::new(), 0);
    for round in 0..rounds {
        let mut request = Request::right(&document, &mut ids, &key, &mut dice);
        let spoilt =
            (0..dice.below(3)).map(|_| spoil::spoil(&mut request, &ids, &mut dice)).collect::<Vec<_>>();
        let response = wire::send(server.base_url(), &request).await;
        if let Err(fault) = check(&document, &request, response.as_ref()) {
            panic!(
                "HERM_TEST_SEED={seed}, round {round}, spoilt by {spoilt:?}: {fault}\n{}\n{response:?}\n{}",
                request.shown(),
                server.log()
            );
        }
        if let Some(response) = response {
            *statuses.entry(response.status).or_default() += 1;
            ids.learn(&request, &response);
        }
        if round == rounds / WARM_UP_PART {
            warm_kib = resident_kib(&server);
        }
    }
    let healthy = world.client_of(&server).get("/healthz").await.unwrap();
    assert_eq!(healthy.status, 200);
    let grown_kib = resident_kib(&server).saturating_sub(warm_kib);
    assert!(
        grown_kib <= MAX_GROWTH_KIB,
        "HERM_TEST_SEED={seed}: it grew by {grown_kib} KiB after {warm_kib} KiB"
    );
    // A generator that only makes nonsense tests nothing but the door.
    for status in [200, 400, 404, 405] {
        assert!(statuses.contains_key(&status), "HERM_TEST_SEED={seed}: never {status}: {statuses:?}");
    }
}

/// What the requests find: deployments without a sandbox, so that no process is started for each message.
async fn ground(world: &World, server: &Server) -> Ids {
    let client = world.client_of(server);
    let mut ids = Ids::default();
    for number in 0..3 {
        let body = json!({"customer_id": "acme", "name": format!("Ada {number}"), "system_prompt": "Be brief.",
            "sandbox": {"enabled": false}});
        let made = client.post("/v1/deployments", &body).await.unwrap().json();
        let path = format!("/v1/deployments/{}/messages", text(&made, "deployment_id"));
        let sent = client.post(&path, &json!({"content": "hello"})).await.unwrap();
        assert_eq!(sent.status, 202, "{}", sent.text());
        ids.keep(&made);
        ids.keep(&sent.json());
    }
    ids
}

/// What is wrong with an answer, or with there being none.
fn check(document: &Document, request: &Request, response: Option<&Response>) -> Result<(), String> {
    let Some(response) = response else {
        return if request.is_broken { Ok(()) } else { Err("there was no answer".to_owned()) };
    };
    let status = response.status;
    if status >= 500 {
        return Err(format!("it failed with {status}"));
    }
    // What is not even HTTP is refused before any of our code sees it.
    if request.is_broken && status >= 400 && response.body.is_empty() {
        return Ok(());
    }
    match document.find(&request.method, request.path()) {
        Some(operation) if operation["responses"].get(status.to_string()).is_none() => {
            return Err(format!("{status} is not documented for {}", operation["operationId"]));
        }
        None if ![400, 404, 405].contains(&status) => {
            return Err(format!("{status} where there is no operation"));
        }
        _ => {}
    }
    if status < 400 || request.method == "HEAD" { Ok(()) } else { check_error(response) }
}

fn check_error(response: &Response) -> Result<(), String> {
    let body: Value = serde_json::from_slice(&response.body).map_err(|error| format!("no JSON: {error}"))?;
    let is_text = |field: &str| body[field].as_str().is_some_and(|text| !text.is_empty());
    if !["error", "message", "request_id"].into_iter().all(is_text) {
        return Err("the error lacks error, message or request_id".to_owned());
    }
    // A replayed error is the first one's, its request's id included.
    let is_replayed = response.header("idempotent-replayed").is_some();
    if !is_replayed && response.header("x-request-id") != body["request_id"].as_str() {
        return Err("X-Request-Id and request_id differ".to_owned());
    }
    let known = ["error", "message", "details", "request_id"];
    let fields = body.as_object().map(|fields| fields.keys().collect::<Vec<_>>()).unwrap_or_default();
    if fields.iter().any(|field| !known.contains(&field.as_str())) {
        return Err("the error has another field".to_owned());
    }
    Ok(())
}

/// The server's memory, as the kernel counts it.
fn resident_kib(server: &Server) -> u64 {
    let pid = server.pid().expect("the server has ended");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
