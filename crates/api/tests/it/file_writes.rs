//! Tests of writing and deleting files. Writes are atomic, and paths cannot lead outside the workspace.

use std::convert::Infallible;
use std::path::PathBuf;

use axum::body::{Body, Bytes};
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::world::{ApiResponse, MAX_FILE_BYTES, World, read};

fn workspace(world: &World, deployment: &Value) -> PathBuf {
    let dir = world.workspaces_dir.join(deployment["deployment_id"].as_str().unwrap());
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

async fn put(
    world: &World,
    deployment: &Value,
    path: &str,
    body: Body,
    headers: &[(&str, &str)],
) -> ApiResponse {
    let path = World::path(deployment, &format!("/files?path={path}"));
    let mut request = Request::builder()
        .method(Method::PUT)
        .uri(path)
        .header("authorization", format!("Bearer {}", world.writer));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    read(world.send(request.body(body).unwrap()).await).await
}

async fn delete(world: &World, deployment: &Value, path: &str) -> ApiResponse {
    let path = World::path(deployment, &format!("/files?path={path}"));
    world.call(&world.writer, Method::DELETE, &path, None).await
}

/// Returns a chunked request body of the given size, without a Content-Length.
fn streamed(bytes: u64) -> Body {
    const CHUNK: u64 = 64 * 1024;
    let chunks = (0..bytes.div_ceil(CHUNK)).map(move |number| {
        let size = CHUNK.min(bytes - number * CHUNK);
        Ok::<_, Infallible>(Bytes::from(vec![b'x'; usize::try_from(size).unwrap()]))
    });
    Body::from_stream(stream::iter(chunks))
}

#[tokio::test]
async fn a_file_is_written_with_its_directories_and_can_be_read() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let response = put(&world, &deployment, "./a//b/c.bin", Body::from(vec![0, 255, 1]), &[]).await;
    assert_eq!(response.status, StatusCode::OK);
    let written = response.json();
    assert_eq!((&written["path"], &written["size"]), (&json!("a/b/c.bin"), &json!(3)));
    assert!(written["modified_at"].as_str().unwrap().ends_with('Z'));
    let content = world.get(&World::path(&deployment, "/files/content?path=a/b/c.bin")).await;
    assert_eq!(content.bytes, [0, 255, 1]);
    assert_eq!(
        content.headers["etag"], response.headers["etag"],
        "the ETag of the write and of the read differ"
    );
    // Overwrites the file with an empty body, and then with a chunked one.
    assert_eq!(put(&world, &deployment, "a/b/c.bin", Body::empty(), &[]).await.json()["size"], 0);
    assert_eq!(put(&world, &deployment, "a/b/c.bin", streamed(300_000), &[]).await.json()["size"], 300_000);
    assert_eq!(std::fs::read_dir(workspace(&world, &deployment).join("a/b")).unwrap().count(), 1);
}

#[tokio::test]
async fn of_two_writers_with_the_same_if_match_only_one_succeeds() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let is_new = [("if-none-match", "*")];
    let first = put(&world, &deployment, "notes", Body::from("one"), &is_new).await;
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(
        put(&world, &deployment, "notes", Body::from("two"), &is_new).await.status_and_code(),
        (409, "conflict".to_owned())
    );
    let etag = first.headers["etag"].to_str().unwrap().to_owned();
    let if_match = [("if-match", etag.as_str())];
    let (left, right) = tokio::join!(
        put(&world, &deployment, "notes", Body::from("left"), &if_match),
        put(&world, &deployment, "notes", Body::from("right"), &if_match),
    );
    let mut statuses = [left.status.as_u16(), right.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    let weak = format!("W/{etag}");
    for mismatch in [etag.as_str(), "\"other\"", &weak] {
        assert_eq!(
            put(&world, &deployment, "notes", Body::from("late"), &[("if-match", mismatch)])
                .await
                .status_and_code()
                .0,
            409
        );
    }
    let missing = put(&world, &deployment, "missing", Body::from("x"), &[("if-match", "*")]).await;
    assert_eq!(missing.status_and_code().0, 409);
    let malformed = put(&world, &deployment, "notes", Body::from("x"), &[("if-match", "unquoted")]).await;
    assert_eq!((malformed.status_and_code().0, malformed.error_paths()), (400, vec!["if-match".to_owned()]));
    let content = std::fs::read_to_string(workspace(&world, &deployment).join("notes")).unwrap();
    assert!(["left", "right"].contains(&content.as_str()), "{content}");
}

#[tokio::test]
async fn a_file_over_the_size_limit_is_rejected_before_and_during_the_upload() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let largest = put(&world, &deployment, "big", streamed(MAX_FILE_BYTES), &[]).await;
    assert_eq!(largest.json()["size"], MAX_FILE_BYTES);
    // This body never sends any data, so the server can reject the request only because of its Content-Length.
    let content_length = (MAX_FILE_BYTES + 1).to_string();
    let pending = Body::new(PendingBody(MAX_FILE_BYTES + 1));
    let rejected = put(&world, &deployment, "big", pending, &[("content-length", &content_length)]).await;
    assert_eq!(rejected.status_and_code(), (413, "validation_error".to_owned()));
    let rejected = put(&world, &deployment, "big", streamed(MAX_FILE_BYTES + 1), &[]).await;
    assert_eq!(rejected.status_and_code(), (413, "validation_error".to_owned()));
    let dir = workspace(&world, &deployment);
    assert_eq!(std::fs::metadata(dir.join("big")).unwrap().len(), MAX_FILE_BYTES);
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1, "a rejected upload left a file behind");
}

/// A request body that declares this length in bytes, but never sends any data.
struct PendingBody(u64);

impl http_body::Body for PendingBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        std::task::Poll::Pending
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0)
    }
}

#[tokio::test]
async fn an_interrupted_upload_leaves_the_file_unchanged() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    put(&world, &deployment, "file", Body::from("old"), &[]).await;
    let partial = stream::iter([Ok(Bytes::from(vec![b'x'; 600_000]))]);
    let broken = partial.chain(stream::iter([Err(std::io::Error::other("connection reset"))]));
    let rejected = put(&world, &deployment, "file", Body::from_stream(broken), &[]).await;
    assert_eq!(rejected.status_and_code(), (400, "validation_error".to_owned()));
    let dir = workspace(&world, &deployment);
    assert_eq!(std::fs::read_to_string(dir.join("file")).unwrap(), "old");
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1);
}

#[tokio::test]
async fn nothing_outside_the_workspace_is_written_or_deleted() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let dir = workspace(&world, &deployment);
    let outside = world.workspaces_dir.join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "SECRET").unwrap();
    std::os::unix::fs::symlink(outside.join("secret"), dir.join("link")).unwrap();
    std::os::unix::fs::symlink(&outside, dir.join("up")).unwrap();
    std::os::unix::fs::symlink("/proc/self/root", dir.join("magic")).unwrap();
    let absolute = outside.join("secret").to_str().unwrap().replace('/', "%2F");
    for path in [
        "../outside/secret",
        "a/../../outside/secret",
        "%2e%2e/outside/secret",
        "..%2Foutside%2Fsecret",
        "link",
        "up/secret",
        "up/new/deep",
        "up",
        "magic/tmp/herm",
        "a%00b",
        "",
        ".",
        "./",
        &absolute,
    ] {
        let written = put(&world, &deployment, path, Body::from("mine"), &[]).await;
        assert_eq!(written.status_and_code(), (400, "validation_error".to_owned()), "PUT {path}");
        let deleted = delete(&world, &deployment, path).await;
        assert_eq!(deleted.status_and_code(), (400, "validation_error".to_owned()), "DELETE {path}");
    }
    assert_eq!(std::fs::read_to_string(outside.join("secret")).unwrap(), "SECRET");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 3);
}

#[tokio::test]
async fn files_and_directories_can_be_deleted() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    for path in ["a/b/one", "a/b/c/two", "keep"] {
        put(&world, &deployment, path, Body::from("text"), &[]).await;
    }
    std::os::unix::fs::symlink("/etc/passwd", workspace(&world, &deployment).join("a/link")).unwrap();
    let deleted = delete(&world, &deployment, "a//b/one").await;
    assert_eq!(
        (deleted.status, deleted.json()),
        (StatusCode::OK, json!({"path": "a/b/one", "status": "deleted"}))
    );
    assert_eq!(delete(&world, &deployment, "a/b/one").await.status_and_code(), (404, "not_found".to_owned()));
    assert_eq!(delete(&world, &deployment, "keep/below").await.status_and_code().0, 400);
    assert_eq!(delete(&world, &deployment, "a").await.status, StatusCode::OK);
    assert_eq!(delete(&world, &deployment, "a").await.status_and_code().0, 404);
    let listed = world.get(&World::path(&deployment, "/files")).await.json();
    assert_eq!(listed["entries"].as_array().unwrap().len(), 1);
    assert_eq!(put(&world, &deployment, "keep/below", Body::from("x"), &[]).await.status_and_code().0, 400);
    put(&world, &deployment, "d/file", Body::from("x"), &[]).await;
    assert_eq!(put(&world, &deployment, "d", Body::from("x"), &[]).await.status_and_code().0, 400);
}

#[tokio::test]
async fn a_file_is_deleted_only_if_its_etag_matches() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    put(&world, &deployment, "file", Body::from("one"), &[]).await;
    let etag = put(&world, &deployment, "file", Body::from("two"), &[]).await.headers["etag"].clone();
    let delete_if = async |tag: &str| {
        let path = World::path(&deployment, "/files?path=file");
        let request = Request::builder().method(Method::DELETE).uri(path).header("if-match", tag);
        let request = request.header("authorization", format!("Bearer {}", world.writer));
        read(world.send(request.body(Body::empty()).unwrap()).await).await
    };
    assert_eq!(delete_if("\"other\"").await.status_and_code().0, 409);
    assert_eq!(delete_if(etag.to_str().unwrap()).await.status, StatusCode::OK);
}

/// Simulates the deletion of the deployment during the upload of a file. The file must not remain on disk.
#[tokio::test]
async fn an_upload_that_ends_after_the_deletion_is_discarded() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let dir = workspace(&world, &deployment);
    let deletion = Request::builder().method(Method::DELETE).uri(World::path(&deployment, ""));
    let deletion = deletion.header("authorization", format!("Bearer {}", world.writer));
    let (router, deletion) = (world.router.clone(), deletion.body(Body::empty()).unwrap());
    let deletion = async {
        assert_eq!(router.oneshot(deletion).await.unwrap().status(), StatusCode::OK);
        Ok::<_, Infallible>(Bytes::from("late"))
    };
    let response = put(&world, &deployment, "a/b", Body::from_stream(stream::once(deletion)), &[]).await;
    assert_eq!(response.status_and_code(), (404, "not_found".to_owned()));
    assert!(!dir.exists());
}

/// Creates a deployment with a workspace quota of 16 MiB. The workspace contains a file with a size of `bytes`.
async fn nearly_full(world: &World, bytes: usize) -> Value {
    let mut body = crate::world::minimal();
    body["sandbox"] = json!({"disk_mb": 16});
    let deployment = world.post("/v1/deployments", &body).await.json();
    let path = workspace(world, &deployment).join("existing");
    std::fs::write(&path, vec![1; bytes]).unwrap();
    std::fs::File::open(path).unwrap().sync_all().unwrap();
    deployment
}

#[tokio::test]
async fn a_file_over_the_quota_is_rejected_before_and_during_the_upload() {
    const MIB: usize = 1024 * 1024;
    let world = World::new().await;
    let deployment = nearly_full(&world, 15 * MIB + MIB / 2).await;
    // This body never sends any data, so the server can reject the request only because of its Content-Length.
    let content_length = MAX_FILE_BYTES.to_string();
    let pending = Body::new(PendingBody(MAX_FILE_BYTES));
    let rejected = put(&world, &deployment, "new", pending, &[("content-length", &content_length)]).await;
    assert_eq!(rejected.status_and_code(), (413, "validation_error".to_owned()));
    let message = rejected.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("quota of 16777216 bytes (sandbox.disk_mb)"), "{message}");
    let rejected = put(&world, &deployment, "new", streamed(MAX_FILE_BYTES), &[]).await;
    assert_eq!(rejected.status_and_code().0, 413);
    assert!(!workspace(&world, &deployment).join("new").exists());
    assert_eq!(put(&world, &deployment, "new", streamed(100_000), &[]).await.status, StatusCode::OK);
    // When a file is replaced, its old content does not count toward the quota. Deleting a file frees the quota
    // immediately.
    assert_eq!(
        put(&world, &deployment, "existing", streamed(MAX_FILE_BYTES), &[]).await.status,
        StatusCode::OK
    );
    assert_eq!(put(&world, &deployment, "more", streamed(MAX_FILE_BYTES), &[]).await.status, StatusCode::OK);
    let deployment = nearly_full(&world, 16 * MIB).await;
    assert_eq!(put(&world, &deployment, "new", streamed(200_000), &[]).await.status_and_code().0, 413);
    assert_eq!(delete(&world, &deployment, "existing").await.status, StatusCode::OK);
    assert_eq!(put(&world, &deployment, "new", streamed(200_000), &[]).await.status, StatusCode::OK);
}
