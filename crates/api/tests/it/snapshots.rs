//! Tests of `/v1/snapshots`, and of deployments that are created from a snapshot or that leave one when they are
//! deleted. No worker runs in these tests, so the tests write the archives of snapshots themselves.

use std::fs;

use herm_app::keys::NewKey;
use herm_sandbox::snapshots::Snapshots;
use herm_sandbox::workspace::archive::Stop;
use herm_store::{Error, queue, snapshots};
use herm_types::key::Scope;
use herm_types::snapshot::{RETENTION_MS, Snapshot, SnapshotContents, SnapshotError, SnapshotStatus};
use herm_types::{Clock as _, DeploymentId, SnapshotId};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::{ApiResponse, World, minimal};

fn snapshot_files(world: &World) -> Snapshots {
    Snapshots::new(world.workspaces_dir.with_file_name("snapshots"))
}

/// Creates a `ready` snapshot in the account `default`, as the worker would. `files` are pairs of path and content.
pub(crate) async fn ready(world: &World, customer_id: &str, files: &[(&str, &str)]) -> SnapshotId {
    let mut body = minimal();
    body["customer_id"] = customer_id.into();
    let deployment = world.post("/v1/deployments", &body).await.json();
    let dir = world.workspaces_dir.join(deployment["deployment_id"].as_str().unwrap());
    fs::create_dir_all(&dir).unwrap();
    for (path, text) in files {
        fs::write(dir.join(path), text).unwrap();
    }
    let deleted = delete(world, &deployment, "?retain_filesystem=true").await.json();
    let id: SnapshotId = deleted["snapshot_id"].as_str().unwrap().parse().unwrap();
    let pending = snapshot_files(world).write(id, &dir, &Stop::default()).unwrap();
    let contents = SnapshotContents {
        size: pending.size_bytes,
        content_size: pending.contents.bytes,
        entries: pending.contents.entries,
        left_out: pending.contents.left_out,
    };
    pending.commit().unwrap();
    let finished = world.store.transaction("finish", move |tx| Box::pin(snapshots::finish(tx, id, contents)));
    assert!(finished.await.unwrap());
    id
}

async fn delete(world: &World, deployment: &Value, query: &str) -> ApiResponse {
    world.call(&world.writer, Method::DELETE, &World::path(deployment, query), None).await
}

async fn find(world: &World, id: SnapshotId) -> Option<Snapshot> {
    world.store.read("find", move |tx| Box::pin(snapshots::find(tx, id))).await.unwrap()
}

async fn create(world: &World, restore_snapshot: &str) -> ApiResponse {
    let mut body = minimal();
    body["restore_snapshot"] = restore_snapshot.into();
    world.post("/v1/deployments", &body).await
}

#[tokio::test]
async fn deleting_with_retain_filesystem_returns_the_snapshot() {
    let world = World::new().await;
    for (query, body) in [
        ("?retain_filesystem=true", None),
        ("", Some(json!({"retain_filesystem": true}))),
        ("?retain_filesystem=true", Some(json!({"retain_filesystem": false}))),
    ] {
        let deployment = world.deployment().await;
        let response =
            world.call(&world.writer, Method::DELETE, &World::path(&deployment, query), body.as_ref()).await;
        let deleted = response.json();
        assert_eq!((response.status, &deleted["status"]), (StatusCode::OK, &json!("deleted")));
        let expires_at = world.clock.now().plus_ms(RETENTION_MS);
        assert_eq!(deleted["snapshot_expires_at"], json!(expires_at));
        let path = format!("/v1/snapshots/{}", deleted["snapshot_id"].as_str().unwrap());
        let shown = world.get(&path).await.json();
        let expected = json!({
            "snapshot_id": deleted["snapshot_id"], "deployment_id": deployment["deployment_id"], "customer_id": "acme",
            "status": "creating", "contents": null, "created_at": json!(world.clock.now()),
            "expires_at": json!(expires_at),
        });
        assert_eq!(shown, expected);
        assert_eq!(
            world.get(&format!("{path}/content")).await.status_and_code(),
            (409, "conflict".to_owned())
        );
    }
    let deployment = world.deployment().await;
    let deleted = delete(&world, &deployment, "?retain_filesystem=false").await.json();
    assert_eq!(deleted, json!({"deployment_id": deployment["deployment_id"], "status": "deleted"}));
}

#[tokio::test]
async fn snapshots_can_be_filtered_downloaded_and_deleted() {
    let world = World::new().await;
    let ours = ready(&world, "acme", &[("a.txt", "text")]).await;
    let other = ready(&world, "other", &[]).await;
    let deployment = world.deployment().await;
    delete(&world, &deployment, "?retain_filesystem=true").await;
    let ids = async |query: &str| {
        let listed = world.get(&format!("/v1/snapshots?{query}")).await.json();
        let rows = listed["data"].as_array().unwrap();
        rows.iter().map(|row| row["snapshot_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids("").await.len(), 3);
    assert_eq!(ids("customer_id=other").await, [other.to_string()]);
    assert_eq!(ids("status=ready&customer_id=acme").await, [ours.to_string()]);
    assert_eq!(ids("status=error").await, [""; 0]);
    assert_eq!(world.get("/v1/snapshots?status=done").await.error_paths(), ["status"]);
    let path = format!("/v1/snapshots/{ours}");
    let shown = world.get(&path).await.json();
    assert_eq!(shown["contents"]["content_size"], 4);
    assert_eq!(shown["contents"]["entries"], 1);
    let content = world.get(&format!("{path}/content")).await;
    assert_eq!(shown["contents"]["size"], content.bytes.len());
    assert_eq!(content.bytes[..4], [0x28, 0xb5, 0x2f, 0xfd], "the content is not zstd");
    let disposition = content.headers["content-disposition"].to_str().unwrap();
    assert_eq!(disposition, format!("attachment; filename=\"{ours}.tar.zst\""));
    let deleted = world.call(&world.writer, Method::DELETE, &path, None).await;
    assert_eq!(deleted.json(), json!({"snapshot_id": ours.to_string(), "status": "deleted"}));
    assert!(snapshot_files(&world).open(ours).is_err() && snapshot_files(&world).open(other).is_ok());
    for missing in [path.clone(), format!("{path}/content"), "/v1/snapshots/nonsense".to_owned()] {
        assert_eq!(world.get(&missing).await.status_and_code(), (404, "not_found".to_owned()));
    }
    let again = world.call(&world.writer, Method::DELETE, &path, None).await;
    assert_eq!(again.status_and_code(), (404, "not_found".to_owned()));
}

#[tokio::test]
async fn a_failed_snapshot_reports_its_error() {
    let world = World::new().await;
    let id = ready(&world, "acme", &[]).await;
    let deployment = world.deployment().await;
    let deleted = delete(&world, &deployment, "?retain_filesystem=true").await.json();
    let failed: SnapshotId = deleted["snapshot_id"].as_str().unwrap().parse().unwrap();
    let error = SnapshotError { code: "no_space".to_owned(), message: "The disk is full.".to_owned() };
    let fail = world
        .store
        .transaction("fail", move |tx| Box::pin(async move { snapshots::fail(tx, failed, &error).await }));
    fail.await.unwrap();
    let path = format!("/v1/snapshots/{failed}");
    let shown = world.get(&path).await.json();
    let error = json!({"code": "no_space", "message": "The disk is full."});
    assert_eq!((&shown["status"], &shown["error"]), (&json!("error"), &error));
    let rejected = world.get(&format!("{path}/content")).await;
    assert_eq!(rejected.status_and_code(), (409, "conflict".to_owned()));
    assert!(rejected.json()["message"].as_str().unwrap().contains("The disk is full."));
    assert_eq!(create(&world, &failed.to_string()).await.status_and_code(), (409, "conflict".to_owned()));
    // If the archive of a `ready` snapshot is missing on disk, the response is a server error.
    fs::remove_file(world.workspaces_dir.with_file_name("snapshots").join(format!("{id}.tar.zst"))).unwrap();
    assert_eq!(world.get(&format!("/v1/snapshots/{id}/content")).await.status_and_code().0, 500);
}

#[tokio::test]
async fn a_restricted_key_sees_its_own_snapshots_and_a_token_sees_none() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let deployment_id: DeploymentId = deployment["deployment_id"].as_str().unwrap().parse().unwrap();
    let token = world.token(&deployment).await;
    let new = |customer_id: Option<&str>, deployment_id| NewKey {
        name: "limited".to_owned(),
        account: "default".to_owned(),
        scopes: vec![Scope::DeploymentsRead, Scope::DeploymentsWrite],
        deployment_id,
        customer_id: customer_id.map(str::to_owned),
        expires_at: None,
    };
    let (of_customer, _) = world.limited_key(new(Some("acme"), None)).await;
    let (of_deployment, _) = world.limited_key(new(None, Some(deployment_id))).await;
    let deleted = world
        .call(&of_deployment, Method::DELETE, &World::path(&deployment, "?retain_filesystem=true"), None)
        .await
        .json();
    let (ours, other) = (deleted["snapshot_id"].as_str().unwrap(), ready(&world, "other", &[]).await);
    for key in [&of_customer, &of_deployment] {
        let listed = world.call(key, Method::GET, "/v1/snapshots", None).await.json();
        assert_eq!(listed["data"].as_array().unwrap().len(), 1);
        let mine = world.call(key, Method::GET, &format!("/v1/snapshots/{ours}"), None).await;
        assert_eq!(mine.status, StatusCode::OK);
        let filtered = world.call(key, Method::GET, "/v1/snapshots?customer_id=other", None).await.json();
        assert_eq!(filtered["data"], json!([]));
        for (method, rest) in [(Method::GET, ""), (Method::GET, "/content"), (Method::DELETE, "")] {
            let outside = world.call(key, method, &format!("/v1/snapshots/{other}{rest}"), None).await;
            assert_eq!(outside.status_and_code(), (404, "not_found".to_owned()));
        }
    }
    for path in ["/v1/snapshots".to_owned(), format!("/v1/snapshots/{ours}/content")] {
        assert_eq!(world.call(&token, Method::GET, &path, None).await.status_and_code().0, 403);
    }
}

#[tokio::test]
async fn a_deployment_can_only_restore_a_ready_snapshot_of_its_customer_that_fits() {
    let world = World::new().await;
    let (ours, other) = (ready(&world, "acme", &[]).await, ready(&world, "other", &[]).await);
    let deployment = create(&world, &ours.to_string()).await;
    assert_eq!(
        (deployment.status, &deployment.json()["status"]),
        (StatusCode::CREATED, &json!("provisioning"))
    );
    let message = json!({"content": "Hello?"});
    let early = world.post(&World::path(&deployment.json(), "/messages"), &message).await;
    assert_eq!(early.status_and_code(), (409, "deployment_not_ready".to_owned()));
    let rejected = create(&world, &other.to_string()).await;
    assert_eq!(
        (rejected.status_and_code().0, rejected.error_paths()),
        (400, vec!["restore_snapshot".to_owned()])
    );
    assert_eq!(create(&world, "dep_x").await.error_paths(), ["restore_snapshot"]);
    let unknown = world.ids.next::<SnapshotId>().to_string();
    assert_eq!(create(&world, &unknown).await.status_and_code(), (404, "not_found".to_owned()));
    let mut body = minimal();
    body["restore_snapshot"] = ours.to_string().into();
    let foreign = world.call(&world.other_account, Method::POST, "/v1/deployments", Some(&body)).await;
    assert_eq!(foreign.status_and_code(), (404, "not_found".to_owned()));
    let unready = delete(&world, &world.deployment().await, "?retain_filesystem=true").await.json();
    let unready = create(&world, unready["snapshot_id"].as_str().unwrap()).await;
    assert_eq!(unready.status_and_code(), (409, "conflict".to_owned()));
    let large = ready(&world, "acme", &[("large", &"x".repeat(17 * 1024 * 1024))]).await;
    body["restore_snapshot"] = large.to_string().into();
    body["sandbox"] = json!({"disk_mb": 16});
    let rejected = world.post("/v1/deployments", &body).await;
    assert_eq!(
        (rejected.status_and_code().0, rejected.error_paths()),
        (400, vec!["restore_snapshot".to_owned()])
    );
    // The rejected requests have created no deployments.
    assert_eq!(world.get("/v1/deployments").await.json()["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_failed_restore_reports_its_error_and_can_be_retried() {
    let world = World::new().await;
    let id = ready(&world, "acme", &[]).await;
    let deployment = create(&world, &id.to_string()).await.json();
    let deployment_id: DeploymentId = deployment["deployment_id"].as_str().unwrap().parse().unwrap();
    let complete = world.store.transaction("complete", move |tx| {
        Box::pin(async move {
            let leases = queue::claim(tx, "test", 9, 1000).await?;
            let [lease] =
                leases.iter().filter(|lease| lease.deployment_id == deployment_id).collect::<Vec<_>>()[..]
            else {
                panic!("{leases:?}");
            };
            queue::complete(tx, lease).await
        })
    });
    complete.await.unwrap();
    world.fail_provisioning(&deployment).await;
    let shown = world.get(&World::path(&deployment, "")).await.json();
    let error = json!({"code": "no_space", "message": "No room."});
    assert_eq!((&shown["status"], &shown["error"]), (&json!("error"), &error));
    let retried = world.post(&World::path(&deployment, "/retry"), &json!({})).await;
    assert_eq!((retried.status, &retried.json()["status"]), (StatusCode::OK, &json!("provisioning")));
    assert_eq!(retried.json().get("error"), None);
    let queued = world.store.read("work", move |tx| {
        Box::pin(async move {
            let leases = queue::claim(tx, "test", 9, 1000).await?;
            Ok::<_, Error>(leases.into_iter().filter(|lease| lease.kind == queue::Kind::Provision).count())
        })
    });
    assert_eq!(queued.await.unwrap(), 1);
    let again = world.post(&World::path(&deployment, "/retry"), &json!({})).await;
    assert_eq!(again.status_and_code(), (409, "conflict".to_owned()), "provisioning is already in progress");
}

/// Simulates the deletion of the deployment during the upload of a file. The uploaded file must be discarded, and the
/// files that are retained for the snapshot must remain.
#[tokio::test]
async fn an_upload_that_ends_after_the_deletion_leaves_the_retained_files() {
    use axum::body::{Body, Bytes};
    use futures_util::stream;
    use http::Request;
    use tower::ServiceExt as _;

    let world = World::new().await;
    let deployment = world.deployment().await;
    let dir = world.workspaces_dir.join(deployment["deployment_id"].as_str().unwrap());
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("kept"), "to be retained").unwrap();
    let authorization = format!("Bearer {}", world.writer);
    let deletion = Request::builder()
        .method(Method::DELETE)
        .uri(World::path(&deployment, "?retain_filesystem=true"))
        .header("authorization", &authorization);
    let (router, deletion) = (world.router.clone(), deletion.body(Body::empty()).unwrap());
    let deletion = async {
        assert_eq!(router.oneshot(deletion).await.unwrap().status(), StatusCode::OK);
        Ok::<_, std::convert::Infallible>(Bytes::from("late"))
    };
    let late = Request::builder()
        .method(Method::PUT)
        .uri(World::path(&deployment, "/files?path=late"))
        .header("authorization", &authorization)
        .body(Body::from_stream(stream::once(deletion)));
    let response = world.send(late.unwrap()).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(fs::read_to_string(dir.join("kept")).unwrap(), "to be retained");
    assert!(!dir.join("late").exists());
    let snapshots = world.get("/v1/snapshots").await.json();
    let id: SnapshotId = snapshots["data"][0]["snapshot_id"].as_str().unwrap().parse().unwrap();
    assert_eq!(find(&world, id).await.unwrap().status, SnapshotStatus::Creating);
}
