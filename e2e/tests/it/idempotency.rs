//! Tests that kill the server and then repeat a request with the same idempotency key. Each request must take effect
//! exactly once.

use herm_testkit::client::{Client, Response};
use herm_testkit::process::Server;
use serde_json::{Value, json};

use crate::world::{World, create, deployment_of, on_both_databases, start};

on_both_databases!(
    a_response_is_replayed_by_the_next_server,
    a_create_acts_once_wherever_its_server_is_killed,
    a_message_acts_once_wherever_its_server_is_killed,
    an_invalid_request_fails_again_wherever_its_server_is_killed,
);

const DEPLOYMENTS: &str = "/v1/deployments";
const KEY: &str = "order-66";

fn is_replayed(response: &Response) -> bool {
    response.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
}

async fn list(client: &Client, path: &str) -> Vec<Value> {
    client.get(path).await.unwrap().json()["data"].as_array().unwrap().clone()
}

async fn a_response_is_replayed_by_the_next_server(world: World) {
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
    // The response contains the address of the first server process, so equal bytes prove that the second process
    // replayed the stored response.
    assert_eq!((second.status, second.bytes), (first.status, first.bytes));
    assert_eq!(list(&client, DEPLOYMENTS).await.len(), 1);
}

/// Returns four failpoints: before and after the transaction that claims the idempotency key, and before and after the
/// transaction `name`. The flag is true for the failpoint at which `name` is already committed.
fn failpoints(name: &str) -> [(String, bool); 4] {
    [("before", "claim_request"), ("after", "claim_request"), ("before", name), ("after", name)]
        .map(|(moment, at)| (format!("commit.{moment}:{at}"), moment == "after" && at == name))
}

/// Sends a request to a server that is killed at the failpoint `point`, and repeats the request on the next server
/// process. The idempotency key is `point`. Returns the response to the repeated request, and the server that sent it.
async fn kill_and_repeat(world: &World, point: &str, path: &str, body: &Value) -> (Response, Server) {
    let killed = start(&world.serve.clone().env("HERM_FAILPOINT", point)).await;
    let lost = world.client_of(&killed).post_once(path, point, body).await;
    assert!(lost.is_err(), "no server was killed at {point}: {lost:?}");
    killed.wait().await.unwrap();
    let server = world.start().await;
    let response = world.client_of(&server).post_once(path, point, body).await.unwrap();
    (response, server)
}

async fn a_create_acts_once_wherever_its_server_is_killed(world: World) {
    let body = deployment_of("demo/tour");
    for (round, (point, is_committed)) in failpoints("create_deployment").into_iter().enumerate() {
        let (response, server) = kill_and_repeat(&world, &point, DEPLOYMENTS, &body).await;
        assert_eq!(response.status, 201, "{point}: {}", response.text());
        assert_eq!(is_replayed(&response), is_committed, "{point}");
        assert_eq!(list(&world.client_of(&server), DEPLOYMENTS).await.len(), round + 1, "{point}");
        server.kill().await.unwrap();
    }
}

async fn a_message_acts_once_wherever_its_server_is_killed(world: World) {
    let server = world.start().await;
    let deployment_id = create(&world.client_of(&server), "demo/tour").await;
    server.kill().await.unwrap();
    let path = format!("{DEPLOYMENTS}/{deployment_id}");
    // Each message goes to a new thread, because a message to a thread with an active run would not start another run.
    let body = json!({"content": "Begin.", "thread_id": "new"});
    for (round, (point, is_committed)) in failpoints("send_message").into_iter().enumerate() {
        let (response, server) = kill_and_repeat(&world, &point, &format!("{path}/messages"), &body).await;
        assert_eq!(response.status, 202, "{point}: {}", response.text());
        assert_eq!(is_replayed(&response), is_committed, "{point}");
        let client = world.client_of(&server);
        assert_eq!(list(&client, &format!("{path}/runs")).await.len(), round + 1, "{point}");
        assert_eq!(list(&client, &format!("{path}/threads")).await.len(), round + 2, "{point}");
        server.kill().await.unwrap();
    }
}

async fn an_invalid_request_fails_again_wherever_its_server_is_killed(world: World) {
    let body = json!({"name": "nobody's"});
    for (point, is_recorded) in failpoints("record_refusal") {
        let (response, server) = kill_and_repeat(&world, &point, DEPLOYMENTS, &body).await;
        assert_eq!(response.status, 400, "{point}: {}", response.text());
        assert_eq!(is_replayed(&response), is_recorded, "{point}");
        server.kill().await.unwrap();
    }
}
