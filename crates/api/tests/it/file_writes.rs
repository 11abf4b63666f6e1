//! `…/files`: written and deleted, whole or not at all, and nothing outside the workspace.

use std::convert::Infallible;
use std::path::PathBuf;

use axum::body::{Body, Bytes};
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::world::{Answer, MAX_FILE_BYTES, World, read};

fn workspace(world: &World, made: &Value) -> PathBuf {
    let dir = world.workspaces_dir.join(made["deployment_id"].as_str().unwrap());
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

async fn put(world: &World, made: &Value, path: &str, body: Body, headers: &[(&str, &str)]) -> Answer {
    let path = World::path(made, &format!("/files?path={path}"));
    let mut request = Request::builder()
        .method(Method::PUT)
        .uri(path)
        .header("authorization", format!("Bearer {}", world.writer));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    read(world.send(request.body(body).unwrap()).await).await
}

async fn delete(world: &World, made: &Value, path: &str) -> Answer {
    let path = World::path(made, &format!("/files?path={path}"));
    world.call(&world.writer, Method::DELETE, &path, None).await
}

/// A body of so many bytes, in pieces and without a length.
fn streamed(bytes: u64) -> Body {
    const PIECE: u64 = 64 * 1024;
    let pieces = (0..bytes.div_ceil(PIECE)).map(move |number| {
        let size = PIECE.min(bytes - number * PIECE);
        Ok::<_, Infallible>(Bytes::from(vec![b'x'; usize::try_from(size).unwrap()]))
    });
    Body::from_stream(stream::iter(pieces))
}

#[tokio::test]
async fn a_file_is_written_with_its_directories_and_read_back() {
    let world = World::new().await;
    let made = world.deployment().await;
    let answer = put(&world, &made, "./a//b/c.bin", Body::from(vec![0, 255, 1]), &[]).await;
    assert_eq!(answer.status, StatusCode::OK);
    let written = answer.json();
    assert_eq!((&written["path"], &written["size"]), (&json!("a/b/c.bin"), &json!(3)));
    assert!(written["modified_at"].as_str().unwrap().ends_with('Z'));
    let content = world.get(&World::path(&made, "/files/content?path=a/b/c.bin")).await;
    assert_eq!(content.bytes, [0, 255, 1]);
    assert_eq!(content.headers["etag"], answer.headers["etag"], "what was written is what is there");
    // Again, with nothing in it, and in pieces.
    assert_eq!(put(&world, &made, "a/b/c.bin", Body::empty(), &[]).await.json()["size"], 0);
    assert_eq!(put(&world, &made, "a/b/c.bin", streamed(300_000), &[]).await.json()["size"], 300_000);
    assert_eq!(std::fs::read_dir(workspace(&world, &made).join("a/b")).unwrap().count(), 1);
}

#[tokio::test]
async fn of_two_that_saw_the_same_file_one_writes_it() {
    let world = World::new().await;
    let made = world.deployment().await;
    let is_new = [("if-none-match", "*")];
    let first = put(&world, &made, "notes", Body::from("one"), &is_new).await;
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(
        put(&world, &made, "notes", Body::from("two"), &is_new).await.refusal(),
        (409, "conflict".to_owned())
    );
    let seen = first.headers["etag"].to_str().unwrap().to_owned();
    let same = [("if-match", seen.as_str())];
    let (left, right) = tokio::join!(
        put(&world, &made, "notes", Body::from("left"), &same),
        put(&world, &made, "notes", Body::from("right"), &same),
    );
    let mut statuses = [left.status.as_u16(), right.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    let weak = format!("W/{seen}");
    for none in [seen.as_str(), "\"other\"", &weak] {
        assert_eq!(
            put(&world, &made, "notes", Body::from("late"), &[("if-match", none)]).await.refusal().0,
            409
        );
    }
    let missing = put(&world, &made, "missing", Body::from("x"), &[("if-match", "*")]).await;
    assert_eq!(missing.refusal().0, 409);
    let odd = put(&world, &made, "notes", Body::from("x"), &[("if-match", "unquoted")]).await;
    assert_eq!((odd.refusal().0, odd.faults()), (400, vec!["if-match".to_owned()]));
    let kept = std::fs::read_to_string(workspace(&world, &made).join("notes")).unwrap();
    assert!(["left", "right"].contains(&kept.as_str()), "{kept}");
}

#[tokio::test]
async fn a_file_over_the_limit_is_refused_before_and_while_it_comes() {
    let world = World::new().await;
    let made = world.deployment().await;
    let most = put(&world, &made, "big", streamed(MAX_FILE_BYTES), &[]).await;
    assert_eq!(most.json()["size"], MAX_FILE_BYTES);
    // By its length: not a byte of this body ever comes.
    let announced = (MAX_FILE_BYTES + 1).to_string();
    let never = Body::new(Announced(MAX_FILE_BYTES + 1));
    let refused = put(&world, &made, "big", never, &[("content-length", &announced)]).await;
    assert_eq!(refused.refusal(), (413, "validation_error".to_owned()));
    let refused = put(&world, &made, "big", streamed(MAX_FILE_BYTES + 1), &[]).await;
    assert_eq!(refused.refusal(), (413, "validation_error".to_owned()));
    let dir = workspace(&world, &made);
    assert_eq!(std::fs::metadata(dir.join("big")).unwrap().len(), MAX_FILE_BYTES);
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1, "nothing is left of what was refused");
}

/// A body that says how long it is and never comes.
struct Announced(u64);

impl http_body::Body for Announced {
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
async fn a_body_that_breaks_off_leaves_the_file_as_it_was() {
    let world = World::new().await;
    let made = world.deployment().await;
    put(&world, &made, "file", Body::from("old"), &[]).await;
    let begun = stream::iter([Ok(Bytes::from(vec![b'x'; 600_000]))]);
    let broken = begun.chain(stream::iter([Err(std::io::Error::other("the connection is gone"))]));
    let refused = put(&world, &made, "file", Body::from_stream(broken), &[]).await;
    assert_eq!(refused.refusal(), (400, "validation_error".to_owned()));
    let dir = workspace(&world, &made);
    assert_eq!(std::fs::read_to_string(dir.join("file")).unwrap(), "old");
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1);
}

#[tokio::test]
async fn nothing_is_written_or_deleted_outside() {
    let world = World::new().await;
    let made = world.deployment().await;
    let dir = workspace(&world, &made);
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
        let written = put(&world, &made, path, Body::from("mine"), &[]).await;
        assert_eq!(written.refusal(), (400, "validation_error".to_owned()), "PUT {path}");
        let deleted = delete(&world, &made, path).await;
        assert_eq!(deleted.refusal(), (400, "validation_error".to_owned()), "DELETE {path}");
    }
    assert_eq!(std::fs::read_to_string(outside.join("secret")).unwrap(), "SECRET");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 3);
}

#[tokio::test]
async fn what_is_deleted_is_gone_and_a_directory_goes_whole() {
    let world = World::new().await;
    let made = world.deployment().await;
    for path in ["a/b/one", "a/b/c/two", "keep"] {
        put(&world, &made, path, Body::from("text"), &[]).await;
    }
    std::os::unix::fs::symlink("/etc/passwd", workspace(&world, &made).join("a/link")).unwrap();
    let gone = delete(&world, &made, "a//b/one").await;
    assert_eq!((gone.status, gone.json()), (StatusCode::OK, json!({"path": "a/b/one", "status": "deleted"})));
    assert_eq!(delete(&world, &made, "a/b/one").await.refusal(), (404, "not_found".to_owned()));
    assert_eq!(delete(&world, &made, "keep/below").await.refusal().0, 400);
    assert_eq!(delete(&world, &made, "a").await.status, StatusCode::OK);
    assert_eq!(delete(&world, &made, "a").await.refusal().0, 404);
    let listed = world.get(&World::path(&made, "/files")).await.json();
    assert_eq!(listed["entries"].as_array().unwrap().len(), 1);
    assert_eq!(put(&world, &made, "keep/below", Body::from("x"), &[]).await.refusal().0, 400);
    put(&world, &made, "d/file", Body::from("x"), &[]).await;
    assert_eq!(put(&world, &made, "d", Body::from("x"), &[]).await.refusal().0, 400);
}

#[tokio::test]
async fn a_file_is_deleted_if_it_is_the_one_that_was_seen() {
    let world = World::new().await;
    let made = world.deployment().await;
    put(&world, &made, "file", Body::from("one"), &[]).await;
    let etag = put(&world, &made, "file", Body::from("two"), &[]).await.headers["etag"].clone();
    let delete_if = async |tag: &str| {
        let path = World::path(&made, "/files?path=file");
        let request = Request::builder().method(Method::DELETE).uri(path).header("if-match", tag);
        let request = request.header("authorization", format!("Bearer {}", world.writer));
        read(world.send(request.body(Body::empty()).unwrap()).await).await
    };
    assert_eq!(delete_if("\"other\"").await.refusal().0, 409);
    assert_eq!(delete_if(etag.to_str().unwrap()).await.status, StatusCode::OK);
}

/// The deployment goes while its file is on the way: nothing of it may stay on the disk.
#[tokio::test]
async fn a_file_that_comes_after_the_deletion_is_not_kept() {
    let world = World::new().await;
    let made = world.deployment().await;
    let dir = workspace(&world, &made);
    let deletion = Request::builder().method(Method::DELETE).uri(World::path(&made, ""));
    let deletion = deletion.header("authorization", format!("Bearer {}", world.writer));
    let (router, deletion) = (world.router.clone(), deletion.body(Body::empty()).unwrap());
    let deletion = async {
        assert_eq!(router.oneshot(deletion).await.unwrap().status(), StatusCode::OK);
        Ok::<_, Infallible>(Bytes::from("late"))
    };
    let answer = put(&world, &made, "a/b", Body::from_stream(stream::once(deletion)), &[]).await;
    assert_eq!(answer.refusal(), (404, "not_found".to_owned()));
    assert!(!dir.exists());
}

/// A workspace that may hold 16 MiB, and holds so many already.
async fn nearly_full(world: &World, bytes: usize) -> Value {
    let mut body = crate::world::minimal();
    body["sandbox"] = json!({"disk_mb": 16});
    let made = world.post("/v1/deployments", &body).await.json();
    let path = workspace(world, &made).join("there");
    std::fs::write(&path, vec![1; bytes]).unwrap();
    std::fs::File::open(path).unwrap().sync_all().unwrap();
    made
}

#[tokio::test]
async fn a_file_beyond_the_quota_is_refused_before_and_while_it_comes() {
    const MIB: usize = 1024 * 1024;
    let world = World::new().await;
    let made = nearly_full(&world, 15 * MIB + MIB / 2).await;
    // By its length: not a byte of this body ever comes.
    let announced = MAX_FILE_BYTES.to_string();
    let never = Body::new(Announced(MAX_FILE_BYTES));
    let refused = put(&world, &made, "new", never, &[("content-length", &announced)]).await;
    assert_eq!(refused.refusal(), (413, "validation_error".to_owned()));
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("quota of 16777216 bytes (sandbox.disk_mb)"), "{message}");
    let refused = put(&world, &made, "new", streamed(MAX_FILE_BYTES), &[]).await;
    assert_eq!(refused.refusal().0, 413);
    assert!(!workspace(&world, &made).join("new").exists());
    assert_eq!(put(&world, &made, "new", streamed(100_000), &[]).await.status, StatusCode::OK);
    // What it replaces makes room for it, and what is deleted makes room at once.
    assert_eq!(put(&world, &made, "there", streamed(MAX_FILE_BYTES), &[]).await.status, StatusCode::OK);
    assert_eq!(put(&world, &made, "more", streamed(MAX_FILE_BYTES), &[]).await.status, StatusCode::OK);
    let made = nearly_full(&world, 16 * MIB).await;
    assert_eq!(put(&world, &made, "new", streamed(200_000), &[]).await.refusal().0, 413);
    assert_eq!(delete(&world, &made, "there").await.status, StatusCode::OK);
    assert_eq!(put(&world, &made, "new", streamed(200_000), &[]).await.status, StatusCode::OK);
}
