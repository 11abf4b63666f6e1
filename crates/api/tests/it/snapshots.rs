//! `/v1/snapshots`, and what a deployment's deletion and creation have to do with them. Nobody makes or restores one here:
//! that is the worker's.

use std::fs;

use herm_app::keys::NewKey;
use herm_sandbox::snapshots::Snapshots;
use herm_sandbox::workspace::archive::Stop;
use herm_store::{Error, deployments, queue, snapshots};
use herm_types::deployment::DeploymentError;
use herm_types::key::Scope;
use herm_types::snapshot::{KEPT_MS, Snapshot, SnapshotContents, SnapshotError, SnapshotStatus};
use herm_types::{Clock as _, DeploymentId, SnapshotId};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::{Answer, World, minimal};

fn kept_in(world: &World) -> Snapshots {
    Snapshots::new(world.workspaces_dir.with_file_name("snapshots"))
}

/// A snapshot of the account `default` with these files, as the worker would have left it.
pub(crate) async fn ready(world: &World, customer_id: &str, files: &[(&str, &str)]) -> SnapshotId {
    let mut body = minimal();
    body["customer_id"] = customer_id.into();
    let made = world.post("/v1/deployments", &body).await.json();
    let dir = world.workspaces_dir.join(made["deployment_id"].as_str().unwrap());
    fs::create_dir_all(&dir).unwrap();
    for (path, text) in files {
        fs::write(dir.join(path), text).unwrap();
    }
    let gone = delete(world, &made, "?retain_filesystem=true").await.json();
    let id: SnapshotId = gone["snapshot_id"].as_str().unwrap().parse().unwrap();
    let pending = kept_in(world).write(id, &dir, &Stop::default()).unwrap();
    let contents = SnapshotContents {
        size: pending.size_bytes,
        content_size: pending.contents.bytes,
        entries: pending.contents.entries,
        left_out: pending.contents.left_out,
    };
    pending.put().unwrap();
    let finished = world.store.transaction("finish", move |tx| Box::pin(snapshots::finish(tx, id, contents)));
    assert!(finished.await.unwrap());
    id
}

async fn delete(world: &World, made: &Value, query: &str) -> Answer {
    world.call(&world.writer, Method::DELETE, &World::path(made, query), None).await
}

async fn find(world: &World, id: SnapshotId) -> Option<Snapshot> {
    world.store.read("find", move |tx| Box::pin(snapshots::find(tx, id))).await.unwrap()
}

async fn create(world: &World, restore_snapshot: &str) -> Answer {
    let mut body = minimal();
    body["restore_snapshot"] = restore_snapshot.into();
    world.post("/v1/deployments", &body).await
}

#[tokio::test]
async fn a_deletion_that_retains_answers_with_its_snapshot() {
    let world = World::new().await;
    for (query, body) in [
        ("?retain_filesystem=true", None),
        ("", Some(json!({"retain_filesystem": true}))),
        ("?retain_filesystem=true", Some(json!({"retain_filesystem": false}))),
    ] {
        let made = world.deployment().await;
        let answer =
            world.call(&world.writer, Method::DELETE, &World::path(&made, query), body.as_ref()).await;
        let gone = answer.json();
        assert_eq!((answer.status, &gone["status"]), (StatusCode::OK, &json!("deleted")));
        let expires_at = world.clock.now().plus_ms(KEPT_MS);
        assert_eq!(gone["snapshot_expires_at"], json!(expires_at));
        let path = format!("/v1/snapshots/{}", gone["snapshot_id"].as_str().unwrap());
        let shown = world.get(&path).await.json();
        let expected = json!({
            "snapshot_id": gone["snapshot_id"], "deployment_id": made["deployment_id"], "customer_id": "acme",
            "status": "creating", "contents": null, "created_at": json!(world.clock.now()),
            "expires_at": json!(expires_at),
        });
        assert_eq!(shown, expected);
        assert_eq!(world.get(&format!("{path}/content")).await.refusal(), (409, "conflict".to_owned()));
    }
    let made = world.deployment().await;
    let gone = delete(&world, &made, "?retain_filesystem=false").await.json();
    assert_eq!(gone, json!({"deployment_id": made["deployment_id"], "status": "deleted"}));
}

#[tokio::test]
async fn snapshots_are_filtered_and_read_and_erased() {
    let world = World::new().await;
    let ours = ready(&world, "acme", &[("a.txt", "text")]).await;
    let other = ready(&world, "other", &[]).await;
    let made = world.deployment().await;
    delete(&world, &made, "?retain_filesystem=true").await;
    let ids = async |query: &str| {
        let listed = world.get(&format!("/v1/snapshots?{query}")).await.json();
        let rows = listed["data"].as_array().unwrap();
        rows.iter().map(|row| row["snapshot_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids("").await.len(), 3);
    assert_eq!(ids("customer_id=other").await, [other.to_string()]);
    assert_eq!(ids("status=ready&customer_id=acme").await, [ours.to_string()]);
    assert_eq!(ids("status=error").await, [""; 0]);
    assert_eq!(world.get("/v1/snapshots?status=done").await.faults(), ["status"]);
    let path = format!("/v1/snapshots/{ours}");
    let shown = world.get(&path).await.json();
    assert_eq!(shown["contents"]["content_size"], 4);
    assert_eq!(shown["contents"]["entries"], 1);
    let content = world.get(&format!("{path}/content")).await;
    assert_eq!(shown["contents"]["size"], content.bytes.len());
    assert_eq!(content.bytes[..4], [0x28, 0xb5, 0x2f, 0xfd], "it is zstd");
    let disposition = content.headers["content-disposition"].to_str().unwrap();
    assert_eq!(disposition, format!("attachment; filename=\"{ours}.tar.zst\""));
    let erased = world.call(&world.writer, Method::DELETE, &path, None).await;
    assert_eq!(erased.json(), json!({"snapshot_id": ours.to_string(), "status": "deleted"}));
    assert!(kept_in(&world).open(ours).is_err() && kept_in(&world).open(other).is_ok());
    for gone in [path.clone(), format!("{path}/content"), "/v1/snapshots/nonsense".to_owned()] {
        assert_eq!(world.get(&gone).await.refusal(), (404, "not_found".to_owned()));
    }
    let again = world.call(&world.writer, Method::DELETE, &path, None).await;
    assert_eq!(again.refusal(), (404, "not_found".to_owned()));
}

#[tokio::test]
async fn what_could_not_be_made_says_why() {
    let world = World::new().await;
    let id = ready(&world, "acme", &[]).await;
    let made = world.deployment().await;
    let gone = delete(&world, &made, "?retain_filesystem=true").await.json();
    let failed: SnapshotId = gone["snapshot_id"].as_str().unwrap().parse().unwrap();
    let error = SnapshotError { code: "no_space".to_owned(), message: "The disk is full.".to_owned() };
    let fail = world
        .store
        .transaction("fail", move |tx| Box::pin(async move { snapshots::fail(tx, failed, &error).await }));
    fail.await.unwrap();
    let path = format!("/v1/snapshots/{failed}");
    let shown = world.get(&path).await.json();
    let error = json!({"code": "no_space", "message": "The disk is full."});
    assert_eq!((&shown["status"], &shown["error"]), (&json!("error"), &error));
    let refused = world.get(&format!("{path}/content")).await;
    assert_eq!(refused.refusal(), (409, "conflict".to_owned()));
    assert!(refused.json()["message"].as_str().unwrap().contains("The disk is full."));
    assert_eq!(create(&world, &failed.to_string()).await.refusal(), (409, "conflict".to_owned()));
    // A file that somebody took away is a fault of the server, and of the one alone.
    fs::remove_file(world.workspaces_dir.with_file_name("snapshots").join(format!("{id}.tar.zst"))).unwrap();
    assert_eq!(world.get(&format!("/v1/snapshots/{id}/content")).await.refusal().0, 500);
}

#[tokio::test]
async fn what_is_limited_sees_its_own_snapshots_and_a_token_sees_none() {
    let world = World::new().await;
    let made = world.deployment().await;
    let deployment_id: DeploymentId = made["deployment_id"].as_str().unwrap().parse().unwrap();
    let token = world.token(&made).await;
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
    let gone = world
        .call(&of_deployment, Method::DELETE, &World::path(&made, "?retain_filesystem=true"), None)
        .await
        .json();
    let (ours, other) = (gone["snapshot_id"].as_str().unwrap(), ready(&world, "other", &[]).await);
    for key in [&of_customer, &of_deployment] {
        let listed = world.call(key, Method::GET, "/v1/snapshots", None).await.json();
        assert_eq!(listed["data"].as_array().unwrap().len(), 1);
        let mine = world.call(key, Method::GET, &format!("/v1/snapshots/{ours}"), None).await;
        assert_eq!(mine.status, StatusCode::OK);
        let filtered = world.call(key, Method::GET, "/v1/snapshots?customer_id=other", None).await.json();
        assert_eq!(filtered["data"], json!([]));
        for (method, rest) in [(Method::GET, ""), (Method::GET, "/content"), (Method::DELETE, "")] {
            let outside = world.call(key, method, &format!("/v1/snapshots/{other}{rest}"), None).await;
            assert_eq!(outside.refusal(), (404, "not_found".to_owned()));
        }
    }
    for path in ["/v1/snapshots".to_owned(), format!("/v1/snapshots/{ours}/content")] {
        assert_eq!(world.call(&token, Method::GET, &path, None).await.refusal().0, 403);
    }
}

#[tokio::test]
async fn a_deployment_begins_with_a_snapshot_of_its_own_customer_alone() {
    let world = World::new().await;
    let (ours, other) = (ready(&world, "acme", &[]).await, ready(&world, "other", &[]).await);
    let made = create(&world, &ours.to_string()).await;
    assert_eq!((made.status, &made.json()["status"]), (StatusCode::CREATED, &json!("provisioning")));
    let message = json!({"content": "Hello?"});
    let early = world.post(&World::path(&made.json(), "/messages"), &message).await;
    assert_eq!(early.refusal(), (409, "deployment_not_ready".to_owned()));
    let refused = create(&world, &other.to_string()).await;
    assert_eq!((refused.refusal().0, refused.faults()), (400, vec!["restore_snapshot".to_owned()]));
    assert_eq!(create(&world, "dep_x").await.faults(), ["restore_snapshot"]);
    let unknown = world.ids.next::<SnapshotId>().to_string();
    assert_eq!(create(&world, &unknown).await.refusal(), (404, "not_found".to_owned()));
    let mut body = minimal();
    body["restore_snapshot"] = ours.to_string().into();
    let foreign = world.call(&world.stranger, Method::POST, "/v1/deployments", Some(&body)).await;
    assert_eq!(foreign.refusal(), (404, "not_found".to_owned()));
    let unready = delete(&world, &world.deployment().await, "?retain_filesystem=true").await.json();
    let unready = create(&world, unready["snapshot_id"].as_str().unwrap()).await;
    assert_eq!(unready.refusal(), (409, "conflict".to_owned()));
    let large = ready(&world, "acme", &[("large", &"x".repeat(17 * 1024 * 1024))]).await;
    body["restore_snapshot"] = large.to_string().into();
    body["sandbox"] = json!({"disk_mb": 16});
    let refused = world.post("/v1/deployments", &body).await;
    assert_eq!((refused.refusal().0, refused.faults()), (400, vec!["restore_snapshot".to_owned()]));
    // Of what was refused nothing is left.
    assert_eq!(world.get("/v1/deployments").await.json()["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn one_whose_restoring_failed_says_why_and_is_tried_again() {
    let world = World::new().await;
    let id = ready(&world, "acme", &[]).await;
    let made = create(&world, &id.to_string()).await.json();
    let deployment_id: DeploymentId = made["deployment_id"].as_str().unwrap().parse().unwrap();
    let fail = world.store.transaction("fail", move |tx| {
        Box::pin(async move {
            let error = DeploymentError { code: "no_space".to_owned(), message: "No room.".to_owned() };
            let leases = queue::claim(tx, "test", 9, 1000).await?;
            let [lease] =
                leases.iter().filter(|lease| lease.deployment_id == deployment_id).collect::<Vec<_>>()[..]
            else {
                panic!("{leases:?}");
            };
            queue::complete(tx, lease).await?;
            deployments::end_provisioning(tx, deployment_id, Some(&error)).await
        })
    });
    assert!(fail.await.unwrap());
    let shown = world.get(&World::path(&made, "")).await.json();
    let error = json!({"code": "no_space", "message": "No room."});
    assert_eq!((&shown["status"], &shown["error"]), (&json!("error"), &error));
    let retried = world.post(&World::path(&made, "/retry"), &json!({})).await;
    assert_eq!((retried.status, &retried.json()["status"]), (StatusCode::OK, &json!("provisioning")));
    assert_eq!(retried.json().get("error"), None);
    let queued = world.store.read("work", move |tx| {
        Box::pin(async move {
            let leases = queue::claim(tx, "test", 9, 1000).await?;
            Ok::<_, Error>(leases.into_iter().filter(|lease| lease.kind == queue::Kind::Provision).count())
        })
    });
    assert_eq!(queued.await.unwrap(), 1);
    let again = world.post(&World::path(&made, "/retry"), &json!({})).await;
    assert_eq!(again.refusal(), (409, "conflict".to_owned()), "it is under way");
}

/// What was written may be in the way of nobody: the files that are to be kept are not the late one's to remove.
#[tokio::test]
async fn a_file_that_comes_after_a_deletion_that_retains_takes_nothing_with_it() {
    use axum::body::{Body, Bytes};
    use futures_util::stream;
    use http::Request;
    use tower::ServiceExt as _;

    let world = World::new().await;
    let made = world.deployment().await;
    let dir = world.workspaces_dir.join(made["deployment_id"].as_str().unwrap());
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("kept"), "to be retained").unwrap();
    let authorization = format!("Bearer {}", world.writer);
    let deletion = Request::builder()
        .method(Method::DELETE)
        .uri(World::path(&made, "?retain_filesystem=true"))
        .header("authorization", &authorization);
    let (router, deletion) = (world.router.clone(), deletion.body(Body::empty()).unwrap());
    let deletion = async {
        assert_eq!(router.oneshot(deletion).await.unwrap().status(), StatusCode::OK);
        Ok::<_, std::convert::Infallible>(Bytes::from("late"))
    };
    let late = Request::builder()
        .method(Method::PUT)
        .uri(World::path(&made, "/files?path=late"))
        .header("authorization", &authorization)
        .body(Body::from_stream(stream::once(deletion)));
    let answer = world.send(late.unwrap()).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_eq!(fs::read_to_string(dir.join("kept")).unwrap(), "to be retained");
    assert!(!dir.join("late").exists());
    let snapshots = world.get("/v1/snapshots").await.json();
    let id: SnapshotId = snapshots["data"][0]["snapshot_id"].as_str().unwrap().parse().unwrap();
    assert_eq!(find(&world, id).await.unwrap().status, SnapshotStatus::Creating);
}
