//! Tests of the `herm` command line: the output and exit status of its commands.

use herm_testkit::process::Finished;
use serde_json::Value;

use crate::world::{World, create, deployment_of, on_both_databases, start};

on_both_databases!(
    keys_are_created_and_revoked_while_a_server_runs,
    the_server_rejects_another_master_key_and_key_commands_need_none,
);

async fn run(world: &World, arguments: &[&str]) -> Finished {
    world.command.clone().arguments(arguments).run().await.unwrap()
}

async fn json(world: &World, arguments: &[&str]) -> Value {
    let finished = run(world, arguments).await;
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    serde_json::from_str(&finished.stdout).unwrap()
}

/// Checks that the command fails with this exit status and that standard error contains `reason`. With status 1,
/// standard error must be a single line.
async fn check_failure(world: &World, arguments: &[&str], status: i32, reason: &str) {
    let finished = run(world, arguments).await;
    assert_eq!(finished.status.code(), Some(status), "{finished:?}");
    assert!(finished.stderr.contains(reason), "{}", finished.stderr);
    assert_eq!(finished.stdout, "");
    if status == 1 {
        assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    }
}

async fn keys_are_created_and_revoked_while_a_server_runs(world: World) {
    let server = world.start().await;
    let created =
        json(&world, &["keys", "create", "--name", "reader", "--scopes", "deployments:read", "--json"]).await;
    let (key, key_id) = (created["key"].as_str().unwrap(), created["key_id"].as_str().unwrap());
    let reader = herm_testkit::client::Client::new(server.base_url(), key);
    assert_eq!(reader.get("/v1/deployments").await.unwrap().status, 200);
    let response = reader.post("/v1/deployments", &deployment_of("demo/tour")).await.unwrap();
    assert_eq!(
        (response.status.as_u16(), response.json()["error"].as_str().unwrap().to_owned()),
        (403, "forbidden".to_owned())
    );

    let listed = json(&world, &["keys", "list", "--json"]).await;
    let names: Vec<&str> =
        listed["data"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"reader"), "{names:?}");
    assert!(!listed.to_string().contains(key), "a key is shown only once");
    let deployment_id = create(&world.client_of(&server), "demo/tour").await;
    let events = format!("/v1/deployments/{deployment_id}/events");
    let mut stream = reader.stream(&events, Some("evt_0")).await.unwrap();
    assert!(stream.next().await.is_some());
    assert_eq!(run(&world, &["keys", "revoke", key_id]).await.status.code(), Some(0));
    // The command that revoked the key does not notify the server. The server must detect the revocation by itself and
    // end the streams that were opened with the key.
    while stream.next().await.is_some() {}
    let revoked = reader.get("/v1/deployments").await.unwrap();
    assert_eq!(revoked.status, 401, "{}", revoked.text());
}

async fn the_server_rejects_another_master_key_and_key_commands_need_none(world: World) {
    let server = world.start().await;
    server.terminate().unwrap();
    server.wait().await.unwrap();
    let file = world.data_dir().join("master.key");
    let key = std::fs::read_to_string(&file).unwrap();
    let other = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    let check_refusal = async |launch: &herm_testkit::process::Launch, reason: &str| {
        let finished = launch.run().await.unwrap();
        assert_eq!((finished.status.code(), finished.stdout.as_str()), (Some(1), ""), "{finished:?}");
        let error = finished.stderr.lines().last().unwrap();
        assert!(error.contains(reason) && error.contains("HERM_MASTER_KEY"), "{error}");
        assert!(!finished.stderr.contains(other), "the key is in the log");
    };
    check_refusal(&world.serve.clone().env("HERM_MASTER_KEY", other), "does not match this database").await;
    std::fs::remove_file(&file).unwrap();
    check_refusal(&world.serve, "the master key of this database is missing").await;
    assert!(!file.exists(), "no new key was created");
    json(&world, &["keys", "create", "--name", "k", "--json"]).await;
    std::fs::write(&file, key).unwrap();
    world.start().await;
}

#[tokio::test]
async fn a_generated_bootstrap_key_is_accepted_after_the_first_start() {
    let world = World::sqlite().await;
    let key = run(&world, &["keys", "generate"]).await.stdout.trim().to_owned();
    let server = start(&world.serve.clone().env("HERM_BOOTSTRAP_KEY", &key)).await;
    let client = herm_testkit::client::Client::new(server.base_url(), &key);
    assert_eq!(client.get("/v1/deployments").await.unwrap().status, 200);
    assert!(!server.log().contains(&key), "the key is in the log");
}

#[tokio::test]
async fn the_error_of_an_invalid_argument_or_setting_names_it() {
    let world = World::sqlite().await;
    check_failure(&world, &["serve", "--lissten", "x"], 2, "--lissten").await;
    check_failure(&world, &["keys", "revoke", "key_nonsense"], 2, "key_nonsense").await;
    check_failure(
        &world,
        &["keys", "create", "--name", "x", "--scopes", "everything"],
        2,
        "deployments:read",
    )
    .await;
    check_failure(&world, &["serve", "--listen", "localhost"], 1, "localhost").await;
    let unknown = world.command.clone().env("HERM_LISSTEN", "x").argument("serve").run().await.unwrap();
    assert_eq!(unknown.status.code(), Some(1));
    assert!(unknown.stderr.contains("HERM_LISSTEN"), "{}", unknown.stderr);
    let malformed =
        world.command.clone().env("HERM_BOOTSTRAP_KEY", "herm_sk_x").argument("serve").run().await.unwrap();
    assert_eq!(malformed.status.code(), Some(1));
    assert!(malformed.stderr.contains("HERM_BOOTSTRAP_KEY"), "{}", malformed.stderr);
}

#[tokio::test]
async fn the_error_of_an_unknown_setting_in_the_file_names_it() {
    let world = World::sqlite().await;
    std::fs::write(world.dir().join("herm.toml"), "lissten = \"127.0.0.1:0\"\n").unwrap();
    check_failure(&world, &["serve"], 1, "lissten").await;
}

#[tokio::test]
async fn the_server_refuses_an_unmigrated_postgres_database() {
    let world = World::postgres().await;
    check_failure(&world, &["serve"], 1, "herm migrate").await;
    let migrated = run(&world, &["migrate"]).await;
    assert_eq!(migrated.status.code(), Some(0), "{migrated:?}");
    let server = start(&world.command.clone().argument("serve")).await;
    let client = world.client_of(&server);
    assert_eq!(client.get("/v1/deployments").await.unwrap().status, 200);
}

#[tokio::test]
async fn the_error_of_an_occupied_port_names_the_address() {
    let world = World::sqlite().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    check_failure(&world, &["serve", "--listen", &address], 1, &address).await;
}

#[tokio::test]
async fn the_version_is_printed() {
    let world = World::sqlite().await;
    assert_eq!(run(&world, &["version"]).await.stdout, format!("herm {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(json(&world, &["version", "--json"]).await["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_runs_an_agent_without_a_provider_key() {
    let world = World::sqlite().await;
    let demo = world.command.clone().env("ANTHROPIC_API_KEY", "").env("OPENAI_API_KEY", "");
    let finished = demo.argument("demo").run().await.unwrap();
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    for expected in ["a canned script, not a model", "shell", "write_file", "completed"] {
        assert!(finished.stdout.contains(expected), "{expected} is not in {}", finished.stdout);
    }
    assert_eq!(world.model.request_count(), 0);
    assert!(!world.data_dir().exists(), "a demo stores nothing");
}
