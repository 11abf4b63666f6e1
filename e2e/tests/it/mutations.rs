//! Sends thousands of mutated requests: valid requests, derived from the OpenAPI document, into which deliberate errors
//! are inserted. The server must reject them as documented and keep running, and its memory must not grow.
//!
//! `HERM_TEST_MUTATIONS` sets the number of requests, and `HERM_TEST_SEED` the seed. If the test fails, it prints the
//! seed and the request.

mod document;
mod mutation;
mod request;
mod seeded_random;
mod wire;

use std::collections::BTreeMap;

use herm_testkit::process::Server;
use serde_json::{Value, json};

use crate::world::{World, text};
use document::Document;
use request::{Ids, Request};
use seeded_random::SeededRandom;
use wire::Response;

/// The number of requests that `make test` sends.
const DEFAULT_ROUNDS: usize = 2_000;
/// The number of requests is divided by this number to get the length of the warm-up. After the warm-up, caches are
/// filled and connection pools are open, and the measurement of memory growth begins.
const WARM_UP_DIVISOR: usize = 4;
/// The maximum growth of the server's memory after the warm-up, in KiB. It does not depend on the number of requests.
const MAX_GROWTH_KIB: u64 = 48 * 1024;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutated_requests_are_rejected_as_documented_and_do_no_harm() {
    let world = World::sqlite().await;
    let server = world.start().await;
    let rounds = usize::try_from(number("HERM_TEST_MUTATIONS", DEFAULT_ROUNDS as u64)).unwrap();
    let seed = number("HERM_TEST_SEED", 20_261_124);
    let mut random = SeededRandom::new(seed);
    let document = Document::fetch(&world.client_of(&server)).await;
    let mut ids = create_deployments(&world, &server).await;
    let key = world.client.key().to_owned();
    let (mut statuses, mut warm_kib) = (BTreeMap::<u16, usize>::new(), 0);
    for round in 0..rounds {
        let mut request = Request::valid(&document, &mut ids, &key, &mut random);
        let mutations = (0..random.below(3))
            .map(|_| mutation::mutate(&mut request, &ids, &mut random))
            .collect::<Vec<_>>();
        let response = wire::send(server.base_url(), &request).await;
        if let Err(reason) = check(&document, &request, response.as_ref()) {
            panic!(
                "HERM_TEST_SEED={seed}, round {round}, mutations {mutations:?}: {reason}\n{}\n{response:?}\n{}",
                request.preview(),
                server.log()
            );
        }
        if let Some(response) = response {
            *statuses.entry(response.status).or_default() += 1;
            ids.add_created(&request, &response);
        }
        if round == rounds / WARM_UP_DIVISOR {
            warm_kib = resident_kib(&server);
        }
    }
    let healthy = world.client_of(&server).get("/healthz").await.unwrap();
    assert_eq!(healthy.status, 200);
    let growth_kib = resident_kib(&server).saturating_sub(warm_kib);
    assert!(
        growth_kib <= MAX_GROWTH_KIB,
        "HERM_TEST_SEED={seed}: the server grew from {warm_kib} KiB by {growth_kib} KiB"
    );
    // Each of these response statuses must have occurred, which shows that requests reached the handlers. If the server
    // had rejected all requests early, the test would prove nothing.
    for status in [200, 400, 404, 405] {
        assert!(
            statuses.contains_key(&status),
            "HERM_TEST_SEED={seed}: no response had status {status}: {statuses:?}"
        );
    }
}

/// Creates the deployments that requests refer to. They have no sandbox, so that messages to them start no processes.
async fn create_deployments(world: &World, server: &Server) -> Ids {
    let client = world.client_of(server);
    let mut ids = Ids::default();
    for number in 0..3 {
        let body = json!({"customer_id": "acme", "name": format!("Ada {number}"), "system_prompt": "Be brief.",
            "sandbox": {"enabled": false}});
        let created = client.post("/v1/deployments", &body).await.unwrap().json();
        let path = format!("/v1/deployments/{}/messages", text(&created, "deployment_id"));
        let sent = client.post(&path, &json!({"content": "hello"})).await.unwrap();
        assert_eq!(sent.status, 202, "{}", sent.text());
        ids.add_permanent(&created);
        ids.add_permanent(&sent.json());
    }
    ids
}

/// Checks the response to a request. `None` means that the server did not respond. Returns an error that describes the
/// violated rule.
fn check(document: &Document, request: &Request, response: Option<&Response>) -> Result<(), String> {
    let Some(response) = response else {
        return if request.is_invalid_http { Ok(()) } else { Err("no response".to_owned()) };
    };
    let status = response.status;
    if status >= 500 {
        return Err(format!("the server failed with {status}"));
    }
    // Invalid HTTP does not reach the API: the server's HTTP library rejects it with an empty body.
    if request.is_invalid_http && status >= 400 && response.body.is_empty() {
        return Ok(());
    }
    match document.find(&request.method, request.path()) {
        Some(operation) if operation["responses"].get(status.to_string()).is_none() => {
            return Err(format!("{status} is not documented for {}", operation["operationId"]));
        }
        None if ![400, 404, 405].contains(&status) => {
            return Err(format!("{status} for an unknown operation"));
        }
        _ => {}
    }
    if status < 400 || request.method == "HEAD" { Ok(()) } else { check_error(response) }
}

fn check_error(response: &Response) -> Result<(), String> {
    let body: Value = serde_json::from_slice(&response.body)
        .map_err(|error| format!("the body of the error is not JSON: {error}"))?;
    let is_text = |field: &str| body[field].as_str().is_some_and(|text| !text.is_empty());
    if !["error", "message", "request_id"].into_iter().all(is_text) {
        return Err("the body lacks error, message or request_id".to_owned());
    }
    // A replayed error response contains the request id of the first attempt, which may differ from the id in the
    // header.
    let is_replayed = response.header("idempotent-replayed").is_some();
    if !is_replayed && response.header("x-request-id") != body["request_id"].as_str() {
        return Err("X-Request-Id and request_id differ".to_owned());
    }
    let known = ["error", "message", "details", "request_id"];
    let fields = body.as_object().map(|fields| fields.keys().collect::<Vec<_>>()).unwrap_or_default();
    if fields.iter().any(|field| !known.contains(&field.as_str())) {
        return Err("the body has an unknown field".to_owned());
    }
    Ok(())
}

/// Returns the current resident memory of the server, in KiB.
fn resident_kib(server: &Server) -> u64 {
    let pid = server.pid().expect("the server has ended");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
