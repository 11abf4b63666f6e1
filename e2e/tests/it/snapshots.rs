//! A deployment's files from its deletion to another deployment: through kills at every step, and through a full disk.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use herm_testkit::client::Client;
use herm_testkit::process::wait_until;
use serde_json::{Value, json};

use crate::files::resident_kib;
use crate::kill_matrix::{Life, walk};
use crate::world::{World, create, deployment_of, text};

const MODEL: &str = "anthropic/claude-sonnet-4.5";
/// The steps of keeping files and of restoring them.
const STEPS: [&str; 4] = ["teardown", "snapshot", "provision", "erase_deployment"];

fn is_step(point: &str) -> bool {
    STEPS.iter().any(|step| point.contains(step))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_files_through_a_kill_at_every_step() {
    let points = walk(async || World::sqlite().await, 2, is_step, |life| Box::pin(live(life))).await;
    for expected in ["snapshot:put", "snapshot:record", "teardown:workspace", "provision:record"] {
        assert!(points.contains_key(expected), "{expected} is not among {points:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_files_through_a_kill_at_every_step() {
    walk(async || World::postgres().await, 1, is_step, |life| Box::pin(live(life))).await;
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

pub(crate) async fn live(life: &mut Life<'_>) {
    let first = life.create(&deployment_of(MODEL)).await;
    let dir = life.world.workspace(&first);
    fill(&dir);
    let snapshot_id = delete(life, &first).await;
    let snapshot = wait_for(life, &format!("/v1/snapshots/{snapshot_id}")).await;
    assert_eq!((&snapshot["status"], &snapshot["contents"]["entries"]), (&json!("ready"), &json!(6)));
    // Its end is the teardown's, which goes on when the server does.
    while dir.exists() {
        life.client().await.get("/healthz").await.ok();
    }
    let body =
        json!({"customer_id": "acme", "name": "Bob", "system_prompt": "", "restore_snapshot": snapshot_id});
    let second = life.create(&body).await;
    let made = wait_for(life, &format!("/v1/deployments/{second}")).await;
    assert_eq!(made["status"], "ready", "{made}");
    check(&life.world.workspace(&second));
    // What a kill left half-made is gone, and the whole one is there.
    let (kept, expected) = (life.world.data_dir().join("snapshots"), [format!("{snapshot_id}.tar.zst")]);
    while names(&kept) != expected {
        life.client().await.get("/healthz").await.ok();
    }
    life.stop().await;
}

/// Deletes and retains; an answer that got lost may have been one of success.
async fn delete(life: &mut Life<'_>, deployment_id: &str) -> String {
    loop {
        let path = format!("/v1/deployments/{deployment_id}?retain_filesystem=true");
        let client = life.client().await;
        if let Ok(answer) = client.delete(&path).await
            && answer.status == 200
        {
            return text(&answer.json(), "snapshot_id");
        }
        if let Some(snapshot) = life.list("/v1/snapshots").await.first() {
            return text(snapshot, "snapshot_id");
        }
    }
}

/// A resource, when it is neither `creating` nor `provisioning` any more.
async fn wait_for(life: &mut Life<'_>, path: &str) -> Value {
    loop {
        let client = life.client().await;
        if let Ok(answer) = client.get(path).await {
            assert_eq!(answer.status, 200, "{}", answer.text());
            let shown = answer.json();
            if shown["status"] != "creating" && shown["status"] != "provisioning" {
                return shown;
            }
        }
    }
}

async fn status_of(client: &Client, path: &str) -> Value {
    client.get(path).await.unwrap().json()
}

/// A snapshot that cannot be made keeps the workspace; the deletion ends when it is erased.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_cannot_be_kept_stay_where_they_are_until_nobody_wants_them() {
    let world = World::sqlite().await;
    let server = world.start().await;
    let client = world.client_of(&server);
    // Where the directory should be is a file: no snapshot finds its place.
    fs::write(world.data_dir().join("snapshots"), "").unwrap();
    let deployment_id = create(&client, MODEL).await;
    let dir = world.workspace(&deployment_id);
    fill(&dir);
    let path = format!("/v1/deployments/{deployment_id}?retain_filesystem=true");
    let snapshot_id = text(&client.delete(&path).await.unwrap().json(), "snapshot_id");
    let path = format!("/v1/snapshots/{snapshot_id}");
    let mut shown = status_of(&client, &path).await;
    while shown["status"] == "creating" {
        shown = status_of(&client, &path).await;
    }
    assert_eq!((&shown["status"], &shown["error"]["code"]), (&json!("error"), &json!("failed")));
    check(&dir);
    let gone = client.get(&format!("/v1/deployments/{deployment_id}")).await.unwrap();
    assert_eq!(gone.status, 404, "the deletion stands");
    assert_eq!(client.delete(&path).await.unwrap().status, 200);
    wait_until(|| !dir.exists()).await;
    server.terminate().unwrap();
    assert!(server.wait().await.unwrap().status.success());
}

/// The bytes that somebody changed on the disk are refused, and nothing of them reaches a workspace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_damaged_leaves_an_error_and_no_file_and_its_retry_succeeds_once_it_is_whole() {
    let world = World::sqlite().await;
    let server = world.start().await;
    let client = world.client_of(&server);
    let first = create(&client, MODEL).await;
    fill(&world.workspace(&first));
    let path = format!("/v1/deployments/{first}?retain_filesystem=true");
    let snapshot_id = text(&client.delete(&path).await.unwrap().json(), "snapshot_id");
    while status_of(&client, &format!("/v1/snapshots/{snapshot_id}")).await["status"] == "creating" {}
    let file = world.data_dir().join("snapshots").join(format!("{snapshot_id}.tar.zst"));
    let whole = world.dir().join("whole");
    fs::copy(&file, &whole).unwrap();
    let size = fs::metadata(&file).unwrap().len();
    fs::File::options().write(true).open(&file).unwrap().set_len(size - 9).unwrap();
    let body =
        json!({"customer_id": "acme", "name": "Bob", "system_prompt": "", "restore_snapshot": snapshot_id});
    let second = text(&client.post("/v1/deployments", &body).await.unwrap().json(), "deployment_id");
    let path = format!("/v1/deployments/{second}");
    let until_settled = async || {
        let mut shown = status_of(&client, &path).await;
        while shown["status"] == "provisioning" {
            shown = status_of(&client, &path).await;
        }
        shown
    };
    let failed = until_settled().await;
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("error"), &json!("snapshot_damaged")));
    assert!(names(&world.workspace(&second)).is_empty());
    fs::copy(&whole, &file).unwrap();
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

/// Large files go in and come back through little memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_is_kept_and_restored_through_little_memory() {
    const SIZE: usize = 100 * 1024 * 1024;
    let world = World::sqlite().await;
    let server = world.start().await;
    let client = world.client_of(&server);
    let first = create(&client, MODEL).await;
    let dir = world.workspace(&first);
    fs::create_dir_all(&dir).unwrap();
    // No two parts of it are alike, so that it stays as large when it is compressed.
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32).to_le_bytes()[0]
    };
    fs::write(dir.join("large"), (0..SIZE).map(|_| next()).collect::<Vec<u8>>()).unwrap();
    let before = resident_kib(&server);
    let path = format!("/v1/deployments/{first}?retain_filesystem=true");
    let snapshot_id = text(&client.delete(&path).await.unwrap().json(), "snapshot_id");
    let path = format!("/v1/snapshots/{snapshot_id}");
    while status_of(&client, &path).await["status"] == "creating" {}
    let body =
        json!({"customer_id": "acme", "name": "Bob", "system_prompt": "", "restore_snapshot": snapshot_id});
    let second = text(&client.post("/v1/deployments", &body).await.unwrap().json(), "deployment_id");
    while status_of(&client, &format!("/v1/deployments/{second}")).await["status"] == "provisioning" {}
    assert_eq!(fs::metadata(world.workspace(&second).join("large")).unwrap().len(), SIZE as u64);
    let grown = resident_kib(&server) - before;
    assert!(grown < 40 * 1024, "{grown} KiB");
    server.terminate().unwrap();
    assert!(server.wait().await.unwrap().status.success());
}
