//! Tests of snapshots, which retain the files of a deleted deployment and can be restored into another deployment. The
//! tests kill the server at every failpoint, make writes fail, and damage archives.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use herm_testkit::client::Client;
use herm_testkit::process::wait_until;
use serde_json::{Value, json};

use crate::files::peak_kib;
use crate::kill_matrix::{RestartingServer, kill_at_each_failpoint};
use crate::world::{World, create, deployment_of, text};

const MODEL: &str = "anthropic/claude-sonnet-4.5";
/// Each failpoint that the server can reach while it retains or restores files contains one of these texts in its name.
const FAILPOINTS: [&str; 4] = ["teardown", "snapshot", "provision", "erase_deployment"];

fn is_own(point: &str) -> bool {
    FAILPOINTS.iter().any(|part| point.contains(part))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_retains_files_through_a_kill_at_every_failpoint() {
    let points = kill_at_each_failpoint(
        async || World::sqlite().await,
        2,
        is_own,
        |server| Box::pin(run_scenario(server)),
    )
    .await;
    for expected in ["snapshot:put", "snapshot:record", "teardown:workspace", "provision:record"] {
        assert!(points.contains_key(expected), "{expected} is not among {points:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_retains_files_through_a_kill_at_every_failpoint() {
    kill_at_each_failpoint(
        async || World::postgres().await,
        1,
        is_own,
        |server| Box::pin(run_scenario(server)),
    )
    .await;
}

fn fill(dir: &Path) {
    fs::create_dir_all(dir.join("a/b")).unwrap();
    fs::write(dir.join("a/b/run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(dir.join("a/b/run.sh"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::write(dir.join("big"), vec![b'x'; 300_000]).unwrap();
    fs::hard_link(dir.join("big"), dir.join("a/big")).unwrap();
    symlink("../big", dir.join("a/link")).unwrap();
}

fn check(dir: &Path) {
    let mode = fs::metadata(dir.join("a/b/run.sh")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o750);
    assert_eq!(fs::read_to_string(dir.join("a/link")).unwrap().len(), 300_000);
    assert_eq!(fs::symlink_metadata(dir.join("a/link")).unwrap().size(), 6);
    assert_eq!(fs::metadata(dir.join("big")).unwrap().nlink(), 2);
    assert_eq!(fs::read_dir(dir).unwrap().count(), 2);
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

pub(crate) async fn run_scenario(server: &mut RestartingServer<'_>) {
    let first = server.create(&deployment_of(MODEL)).await;
    let dir = server.world.workspace(&first);
    fill(&dir);
    let snapshot_id = delete(server, &first).await;
    let snapshot = wait_for(server, &format!("/v1/snapshots/{snapshot_id}")).await;
    assert_eq!((&snapshot["status"], &snapshot["contents"]["entries"]), (&json!("ready"), &json!(6)));
    // Waits until the teardown has removed the workspace. If the server was killed during the teardown,
    // `server.client()` starts it again.
    while dir.exists() {
        server.client().await.get("/healthz").await.ok();
    }
    let body =
        json!({"customer_id": "acme", "name": "Bob", "system_prompt": "", "restore_snapshot": snapshot_id});
    let second = server.create(&body).await;
    let created = wait_for(server, &format!("/v1/deployments/{second}")).await;
    assert_eq!(created["status"], "ready", "{created}");
    check(&server.world.workspace(&second));
    // Waits until the server has removed incomplete archives, so that only the complete one exists.
    let (archives, expected) =
        (server.world.data_dir().join("snapshots"), [format!("{snapshot_id}.tar.zst")]);
    while names(&archives) != expected {
        server.client().await.get("/healthz").await.ok();
    }
    server.stop().await;
}

/// Deletes the deployment and retains its files. Returns the snapshot's id. If the response was lost but the snapshot
/// exists, returns the id of the existing snapshot.
async fn delete(server: &mut RestartingServer<'_>, deployment_id: &str) -> String {
    loop {
        let path = format!("/v1/deployments/{deployment_id}?retain_filesystem=true");
        let client = server.client().await;
        if let Ok(response) = client.delete(&path).await
            && response.status == 200
        {
            return text(&response.json(), "snapshot_id");
        }
        if let Some(snapshot) = server.list("/v1/snapshots").await.first() {
            return text(snapshot, "snapshot_id");
        }
    }
}

/// Waits until the resource's status is neither `creating` nor `provisioning`. Returns the resource.
async fn wait_for(server: &mut RestartingServer<'_>, path: &str) -> Value {
    loop {
        let client = server.client().await;
        if let Ok(response) = client.get(path).await {
            assert_eq!(response.status, 200, "{}", response.text());
            let resource = response.json();
            if resource["status"] != "creating" && resource["status"] != "provisioning" {
                return resource;
            }
        }
    }
}

async fn get(client: &Client, path: &str) -> Value {
    client.get(path).await.unwrap().json()
}

/// If a snapshot fails, the deployment's workspace is retained until the snapshot is deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_snapshot_keeps_the_workspace_until_the_snapshot_is_deleted() {
    let world = World::sqlite().await;
    let server = world.start().await;
    let client = world.client_of(&server);
    // A file in place of the snapshot directory makes every snapshot fail.
    fs::write(world.data_dir().join("snapshots"), "").unwrap();
    let deployment_id = create(&client, MODEL).await;
    let dir = world.workspace(&deployment_id);
    fill(&dir);
    let path = format!("/v1/deployments/{deployment_id}?retain_filesystem=true");
    let snapshot_id = text(&client.delete(&path).await.unwrap().json(), "snapshot_id");
    let path = format!("/v1/snapshots/{snapshot_id}");
    let mut resource = get(&client, &path).await;
    while resource["status"] == "creating" {
        resource = get(&client, &path).await;
    }
    assert_eq!((&resource["status"], &resource["error"]["code"]), (&json!("error"), &json!("failed")));
    check(&dir);
    let response = client.get(&format!("/v1/deployments/{deployment_id}")).await.unwrap();
    assert_eq!(response.status, 404, "the deployment is deleted nevertheless");
    assert_eq!(client.delete(&path).await.unwrap().status, 200);
    wait_until(|| !dir.exists()).await;
    server.terminate().unwrap();
    assert!(server.wait().await.unwrap().status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_restores_no_file_and_a_retry_succeeds_once_it_is_repaired() {
    let world = World::sqlite().await;
    let server = world.start().await;
    let client = world.client_of(&server);
    let first = create(&client, MODEL).await;
    fill(&world.workspace(&first));
    let path = format!("/v1/deployments/{first}?retain_filesystem=true");
    let snapshot_id = text(&client.delete(&path).await.unwrap().json(), "snapshot_id");
    while get(&client, &format!("/v1/snapshots/{snapshot_id}")).await["status"] == "creating" {}
    let file = world.data_dir().join("snapshots").join(format!("{snapshot_id}.tar.zst"));
    let intact = world.dir().join("intact");
    fs::copy(&file, &intact).unwrap();
    let size = fs::metadata(&file).unwrap().len();
    fs::File::options().write(true).open(&file).unwrap().set_len(size - 9).unwrap();
    let body =
        json!({"customer_id": "acme", "name": "Bob", "system_prompt": "", "restore_snapshot": snapshot_id});
    let second = text(&client.post("/v1/deployments", &body).await.unwrap().json(), "deployment_id");
    let path = format!("/v1/deployments/{second}");
    let until_settled = async || {
        let mut resource = get(&client, &path).await;
        while resource["status"] == "provisioning" {
            resource = get(&client, &path).await;
        }
        resource
    };
    let failed = until_settled().await;
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("error"), &json!("snapshot_damaged")));
    assert!(names(&world.workspace(&second)).is_empty());
    fs::copy(&intact, &file).unwrap();
    let retried = client.post(&format!("{path}/retry"), &json!({})).await.unwrap();
    assert_eq!(retried.status, 200, "{}", retried.text());
    let ready = until_settled().await;
    assert_eq!((&ready["status"], ready.get("error")), (&json!("ready"), None));
    check(&world.workspace(&second));
    let events = client.get_as(&format!("{path}/events?after=evt_0"), "application/json").await.unwrap();
    let statuses: Vec<Value> = events.json()["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["data"]["status"].clone())
        .collect();
    assert_eq!(statuses, ["provisioning", "error", "provisioning", "ready"]);
    server.terminate().unwrap();
    assert!(server.wait().await.unwrap().status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_is_retained_and_restored_with_little_memory() {
    const SIZE: usize = 100 * 1024 * 1024;
    let world = World::sqlite().await;
    let server = world.start().await;
    let client = world.client_of(&server);
    let first = create(&client, MODEL).await;
    let dir = world.workspace(&first);
    fs::create_dir_all(&dir).unwrap();
    // Pseudorandom content cannot be compressed, so the archive is as large as the file.
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32).to_le_bytes()[0]
    };
    fs::write(dir.join("large"), (0..SIZE).map(|_| next()).collect::<Vec<u8>>()).unwrap();
    let before = peak_kib(&server);
    let path = format!("/v1/deployments/{first}?retain_filesystem=true");
    let snapshot_id = text(&client.delete(&path).await.unwrap().json(), "snapshot_id");
    let path = format!("/v1/snapshots/{snapshot_id}");
    while get(&client, &path).await["status"] == "creating" {}
    let body =
        json!({"customer_id": "acme", "name": "Bob", "system_prompt": "", "restore_snapshot": snapshot_id});
    let second = text(&client.post("/v1/deployments", &body).await.unwrap().json(), "deployment_id");
    while get(&client, &format!("/v1/deployments/{second}")).await["status"] == "provisioning" {}
    assert_eq!(fs::metadata(world.workspace(&second).join("large")).unwrap().len(), SIZE as u64);
    let growth = peak_kib(&server) - before;
    assert!(growth < 40 * 1024, "{growth} KiB");
    server.terminate().unwrap();
    assert!(server.wait().await.unwrap().status.success());
}
