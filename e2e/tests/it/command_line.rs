//! `herm` as scripts call it: what it prints, and with which status it ends.

use herm_testkit::process::Finished;
use serde_json::Value;

use crate::world::{World, create, deployment_of, on_both_databases, start};

on_both_databases!(
    keys_are_made_and_revoked_beside_a_running_server,
    another_master_key_is_refused_and_keys_need_none,
);

async fn run(world: &World, arguments: &[&str]) -> Finished {
    world.command.clone().arguments(arguments).run().await.unwrap()
}

async fn json(world: &World, arguments: &[&str]) -> Value {
    let finished = run(world, arguments).await;
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    serde_json::from_str(&finished.stdout).unwrap()
}

/// One line on standard error that holds `reason`, and this status.
async fn refused(world: &World, arguments: &[&str], status: i32, reason: &str) {
    let finished = run(world, arguments).await;
    assert_eq!(finished.status.code(), Some(status), "{finished:?}");
    assert!(finished.stderr.contains(reason), "{}", finished.stderr);
    assert_eq!(finished.stdout, "");
    if status == 1 {
        assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    }
}

async fn keys_are_made_and_revoked_beside_a_running_server(world: World) {
    let server = world.start().await;
    let made =
        json(&world, &["keys", "create", "--name", "reader", "--scopes", "deployments:read", "--json"]).await;
    let (key, key_id) = (made["key"].as_str().unwrap(), made["key_id"].as_str().unwrap());
    let reader = herm_testkit::client::Client::new(server.base_url(), key);
    assert_eq!(reader.get("/v1/deployments").await.unwrap().status, 200);
    let refused = reader.post("/v1/deployments", &deployment_of("demo/tour")).await.unwrap();
    assert_eq!(
        (refused.status.as_u16(), refused.json()["error"].as_str().unwrap().to_owned()),
        (403, "forbidden".to_owned())
    );

    let listed = json(&world, &["keys", "list", "--json"]).await;
    let names: Vec<&str> =
        listed["data"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"reader"), "{names:?}");
    assert!(!listed.to_string().contains(key), "a key is shown once");
    let deployment_id = create(&world.client_of(&server), "demo/tour").await;
    let events = format!("/v1/deployments/{deployment_id}/events");
    let mut stream = reader.stream(&events, Some("evt_0")).await.unwrap();
    assert!(stream.next().await.is_some());
    assert_eq!(run(&world, &["keys", "revoke", key_id]).await.status.code(), Some(0));
    // The server is not told by the command; it sees for itself, and ends what the key has opened.
    while stream.next().await.is_some() {}
    let revoked = reader.get("/v1/deployments").await.unwrap();
    assert_eq!(revoked.status, 401, "{}", revoked.text());
}

async fn another_master_key_is_refused_and_keys_need_none(world: World) {
    let server = world.start().await;
    server.terminate().unwrap();
    server.wait().await.unwrap();
    let file = world.data_dir().join("master.key");
    let kept = std::fs::read_to_string(&file).unwrap();
    let other = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    let refused = async |launch: &herm_testkit::process::Launch, reason: &str| {
        let finished = launch.run().await.unwrap();
        assert_eq!((finished.status.code(), finished.stdout.as_str()), (Some(1), ""), "{finished:?}");
        let said = finished.stderr.lines().last().unwrap();
        assert!(said.contains(reason) && said.contains("HERM_MASTER_KEY"), "{said}");
        assert!(!finished.stderr.contains(other), "the key is in the log");
    };
    refused(&world.serve.clone().env("HERM_MASTER_KEY", other), "another master key").await;
    std::fs::remove_file(&file).unwrap();
    refused(&world.serve, "the master key is gone").await;
    assert!(!file.exists(), "no other key took its place");
    json(&world, &["keys", "create", "--name", "k", "--json"]).await;
    std::fs::write(&file, kept).unwrap();
    world.start().await;
}

#[tokio::test]
async fn a_generated_key_is_accepted_from_the_first_start_on() {
    let world = World::sqlite().await;
    let key = run(&world, &["keys", "generate"]).await.stdout.trim().to_owned();
    let server = start(&world.serve.clone().env("HERM_BOOTSTRAP_KEY", &key)).await;
    let client = herm_testkit::client::Client::new(server.base_url(), &key);
    assert_eq!(client.get("/v1/deployments").await.unwrap().status, 200);
    assert!(!server.log().contains(&key), "the key is in the log");
}

#[tokio::test]
async fn what_cannot_be_used_is_named() {
    let world = World::sqlite().await;
    refused(&world, &["serve", "--lissten", "x"], 2, "--lissten").await;
    refused(&world, &["keys", "revoke", "key_nonsense"], 2, "key_nonsense").await;
    refused(&world, &["keys", "create", "--name", "x", "--scopes", "everything"], 2, "deployments:read")
        .await;
    refused(&world, &["serve", "--listen", "localhost"], 1, "localhost").await;
    let unknown = world.command.clone().env("HERM_LISSTEN", "x").argument("serve").run().await.unwrap();
    assert_eq!(unknown.status.code(), Some(1));
    assert!(unknown.stderr.contains("HERM_LISSTEN"), "{}", unknown.stderr);
    let malformed =
        world.command.clone().env("HERM_BOOTSTRAP_KEY", "herm_sk_x").argument("serve").run().await.unwrap();
    assert_eq!(malformed.status.code(), Some(1));
    assert!(malformed.stderr.contains("HERM_BOOTSTRAP_KEY"), "{}", malformed.stderr);
}

#[tokio::test]
async fn a_setting_of_the_file_that_is_not_known_is_named() {
    let world = World::sqlite().await;
    std::fs::write(world.dir().join("herm.toml"), "lissten = \"127.0.0.1:0\"\n").unwrap();
    refused(&world, &["serve"], 1, "lissten").await;
}

#[tokio::test]
async fn an_unmigrated_postgres_database_is_not_served() {
    let world = World::postgres().await;
    refused(&world, &["serve"], 1, "herm migrate").await;
    let migrated = run(&world, &["migrate"]).await;
    assert_eq!(migrated.status.code(), Some(0), "{migrated:?}");
    let server = start(&world.command.clone().argument("serve")).await;
    let client = world.client_of(&server);
    assert_eq!(client.get("/v1/deployments").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let world = World::sqlite().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(&world, &["serve", "--listen", &address], 1, &address).await;
}

#[tokio::test]
async fn the_version_is_printed() {
    let world = World::sqlite().await;
    assert_eq!(run(&world, &["version"]).await.stdout, format!("herm {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(json(&world, &["version", "--json"]).await["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_shows_an_agent_at_work_without_any_key() {
    let world = World::sqlite().await;
    let demo = world.command.clone().env("ANTHROPIC_API_KEY", "").env("OPENAI_API_KEY", "");
    let finished = demo.argument("demo").run().await.unwrap();
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    for expected in ["a canned script, not a model", "shell", "write_file", "completed"] {
        assert!(finished.stdout.contains(expected), "{expected} is not in {}", finished.stdout);
    }
    assert_eq!(world.model.request_count(), 0);
    assert!(!world.data_dir().exists(), "a demo keeps nothing");
}
