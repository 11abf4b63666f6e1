//! Requests with an idempotency key, through crashes: sent again, they have acted once.

use herm_testkit::client::{Answer, Client};
use herm_testkit::process::Server;
use serde_json::{Value, json};

use crate::world::{World, create, deployment_of, on_both_databases, start};

on_both_databases!(
    an_answer_is_replayed_by_the_next_server,
    a_create_acts_once_wherever_its_server_dies,
    a_message_acts_once_wherever_its_server_dies,
    a_refusal_stays_one_wherever_its_server_dies,
);

const DEPLOYMENTS: &str = "/v1/deployments";
const KEY: &str = "order-66";

fn is_replayed(answer: &Answer) -> bool {
    answer.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
}

async fn list(client: &Client, path: &str) -> Vec<Value> {
    client.get(path).await.unwrap().json()["data"].as_array().unwrap().clone()
}

async fn an_answer_is_replayed_by_the_next_server(world: World) {
    let server = world.start().await;
    let client = world.client_of(&server);
    let body = deployment_of("demo/tour");
    let first = client.post_once(DEPLOYMENTS, KEY, &body).await.unwrap();
    assert_eq!((first.status.as_u16(), is_replayed(&first)), (201, false), "{}", first.text());
    server.kill().await.unwrap();
    let server = world.start().await;
    let client = world.client_of(&server);
    let second = client.post_once(DEPLOYMENTS, KEY, &body).await.unwrap();
    assert!(is_replayed(&second), "{}", second.text());
    // The address in it is the first server's, as it was.
    assert_eq!((second.status, second.bytes), (first.status, first.bytes));
    assert_eq!(list(&client, DEPLOYMENTS).await.len(), 1);
}

/// Where a server may die around what the transaction `name` does, and whether that has happened then.
fn points(name: &str) -> [(String, bool); 4] {
    [("before", "claim_request"), ("after", "claim_request"), ("before", name), ("after", name)]
        .map(|(moment, at)| (format!("commit.{moment}:{at}"), moment == "after" && at == name))
}

/// Sends a request to a server that dies at `point`, which serves as the key too, and again to the next one. Gives
/// what that one answers, and that one.
async fn die_and_send_again(world: &World, point: &str, path: &str, body: &Value) -> (Answer, Server) {
    let doomed = start(&world.serve.clone().env("HERM_FAULT_POINT", point)).await;
    let lost = world.client_of(&doomed).post_once(path, point, body).await;
    assert!(lost.is_err(), "nothing was killed at {point}: {lost:?}");
    doomed.wait().await.unwrap();
    let server = world.start().await;
    let answer = world.client_of(&server).post_once(path, point, body).await.unwrap();
    (answer, server)
}

async fn a_create_acts_once_wherever_its_server_dies(world: World) {
    let body = deployment_of("demo/tour");
    for (round, (point, has_happened)) in points("create_deployment").into_iter().enumerate() {
        let (answer, server) = die_and_send_again(&world, &point, DEPLOYMENTS, &body).await;
        assert_eq!(answer.status, 201, "{point}: {}", answer.text());
        assert_eq!(is_replayed(&answer), has_happened, "{point}");
        assert_eq!(list(&world.client_of(&server), DEPLOYMENTS).await.len(), round + 1, "{point}");
        server.kill().await.unwrap();
    }
}

async fn a_message_acts_once_wherever_its_server_dies(world: World) {
    let server = world.start().await;
    let deployment_id = create(&world.client_of(&server), "demo/tour").await;
    server.kill().await.unwrap();
    let path = format!("{DEPLOYMENTS}/{deployment_id}");
    // Each goes to a thread of its own, so that each has a run.
    let body = json!({"content": "Begin.", "thread_id": "new"});
    for (round, (point, has_happened)) in points("send_message").into_iter().enumerate() {
        let (answer, server) = die_and_send_again(&world, &point, &format!("{path}/messages"), &body).await;
        assert_eq!(answer.status, 202, "{point}: {}", answer.text());
        assert_eq!(is_replayed(&answer), has_happened, "{point}");
        let client = world.client_of(&server);
        assert_eq!(list(&client, &format!("{path}/runs")).await.len(), round + 1, "{point}");
        assert_eq!(list(&client, &format!("{path}/threads")).await.len(), round + 2, "{point}");
        server.kill().await.unwrap();
    }
}

async fn a_refusal_stays_one_wherever_its_server_dies(world: World) {
    let body = json!({"name": "nobody's"});
    for (point, is_recorded) in points("record_refusal") {
        let (answer, server) = die_and_send_again(&world, &point, DEPLOYMENTS, &body).await;
        assert_eq!(answer.status, 400, "{point}: {}", answer.text());
        assert_eq!(is_replayed(&answer), is_recorded, "{point}");
        server.kill().await.unwrap();
    }
}
