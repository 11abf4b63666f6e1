//! `…/files`: listed and read, and nothing outside the workspace.

use std::path::PathBuf;

use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::world::{Answer, World, read};

fn workspace(world: &World, made: &Value) -> PathBuf {
    let dir = world.workspaces_dir.join(made["deployment_id"].as_str().unwrap());
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

async fn content(world: &World, made: &Value, path: &str, headers: &[(&str, &str)]) -> Answer {
    let path = World::path(made, &format!("/files/content?path={path}"));
    let mut request =
        Request::builder().uri(path).header("authorization", format!("Bearer {}", world.reader));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    read(world.send(request.body(Body::empty()).unwrap()).await).await
}

#[tokio::test]
async fn a_new_workspace_is_empty() {
    let world = World::new().await;
    let made = world.deployment().await;
    let listed = world.get(&World::path(&made, "/files")).await;
    assert_eq!(listed.json(), json!({"path": "", "entries": []}));
}

#[tokio::test]
async fn entries_are_listed_by_name_and_links_are_shown_as_links() {
    let world = World::new().await;
    let made = world.deployment().await;
    let dir = workspace(&world, &made);
    std::fs::create_dir(dir.join("b")).unwrap();
    std::fs::write(dir.join("a.txt"), "hello").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.join("c")).unwrap();
    let listed = world.get(&World::path(&made, "/files?path=.")).await.json();
    let entries = listed["entries"].as_array().unwrap();
    let shown: Vec<(&str, &str, &Value)> = entries
        .iter()
        .map(|entry| (entry["name"].as_str().unwrap(), entry["type"].as_str().unwrap(), &entry["size"]))
        .collect();
    assert_eq!(
        shown,
        [("a.txt", "file", &json!(5)), ("b", "directory", &Value::Null), ("c", "symlink", &Value::Null)]
    );
    assert!(entries[0]["modified_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(world.get(&World::path(&made, "/files?path=missing")).await.refusal().0, 404);
    assert_eq!(world.get(&World::path(&made, "/files?path=a.txt")).await.refusal().0, 400);
}

#[tokio::test]
async fn a_file_is_read_as_an_attachment_whole_or_in_part() {
    let world = World::new().await;
    let made = world.deployment().await;
    std::fs::write(workspace(&world, &made).join("page.html"), "<p>hello</p>").unwrap();
    let whole = content(&world, &made, "page.html", &[]).await;
    assert_eq!((whole.status, whole.bytes.as_slice()), (StatusCode::OK, b"<p>hello</p>".as_slice()));
    assert_eq!(whole.headers["content-type"], "text/html");
    assert_eq!(whole.headers["content-disposition"], "attachment; filename=\"page.html\"");
    assert_eq!(whole.headers["x-content-type-options"], "nosniff");
    let etag = whole.headers["etag"].to_str().unwrap().to_owned();
    let part = content(&world, &made, "page.html", &[("range", "bytes=3-7"), ("if-range", &etag)]).await;
    assert_eq!((part.status, part.bytes.as_slice()), (StatusCode::PARTIAL_CONTENT, b"hello".as_slice()));
    assert_eq!(part.headers["content-range"], "bytes 3-7/12");
    let beyond = content(&world, &made, "page.html", &[("range", "bytes=50-")]).await;
    assert_eq!(
        (beyond.status, &beyond.headers["content-range"]),
        (StatusCode::RANGE_NOT_SATISFIABLE, &"bytes */12".parse().unwrap())
    );
    assert_eq!(beyond.refusal().1, "validation_error");
    let several = content(&world, &made, "page.html", &[("range", "bytes=0-1,4-5")]).await;
    assert_eq!((several.status, several.bytes.len()), (StatusCode::OK, 12));
    let of_old =
        content(&world, &made, "page.html", &[("range", "bytes=0-1"), ("if-range", "\"old\"")]).await;
    assert_eq!((of_old.status, of_old.bytes.len()), (StatusCode::OK, 12));
    let weakened = format!("\"other\", W/{etag}");
    let seen = content(&world, &made, "page.html", &[("if-none-match", &weakened)]).await;
    assert_eq!(seen.status, StatusCode::NOT_MODIFIED);
    let seen = content(&world, &made, "page.html", &[("if-none-match", &etag)]).await;
    assert_eq!((seen.status, seen.bytes.len()), (StatusCode::NOT_MODIFIED, 0));
    std::fs::write(workspace(&world, &made).join("page.html"), "<p>other</p>!").unwrap();
    let changed = content(&world, &made, "page.html", &[("if-none-match", &etag)]).await;
    assert_eq!(changed.status, StatusCode::OK);
}

#[tokio::test]
async fn a_path_that_leads_out_is_refused() {
    let world = World::new().await;
    let made = world.deployment().await;
    let dir = workspace(&world, &made);
    let secret = world.workspaces_dir.join("secret.txt");
    std::fs::write(&secret, "SECRET").unwrap();
    std::os::unix::fs::symlink(&secret, dir.join("link")).unwrap();
    std::os::unix::fs::symlink(&world.workspaces_dir, dir.join("up")).unwrap();
    // The control: an ordinary read falls for it.
    assert_eq!(std::fs::read_to_string(dir.join("up/secret.txt")).unwrap(), "SECRET");
    let absolute = secret.to_str().unwrap().replace('/', "%2F");
    for path in [
        "../secret.txt",
        "a/../../secret.txt",
        "%2e%2e/secret.txt",
        "link",
        "up/secret.txt",
        "a%00b",
        &absolute,
    ] {
        let answer = content(&world, &made, path, &[]).await;
        assert_eq!(answer.refusal(), (400, "validation_error".to_owned()), "{path}");
        assert!(!String::from_utf8_lossy(&answer.bytes).contains("SECRET"));
    }
    assert_eq!(world.get(&World::path(&made, "/files?path=up")).await.refusal().0, 400);
    assert_eq!(content(&world, &made, "", &[]).await.faults(), ["path"]);
    assert_eq!(content(&world, &made, "%252e%252e/x", &[]).await.refusal().0, 404, "decoded once");
}

#[tokio::test]
async fn head_tells_of_a_file_without_its_bytes() {
    let world = World::new().await;
    let made = world.deployment().await;
    std::fs::write(workspace(&world, &made).join("a.txt"), "hello").unwrap();
    let path = World::path(&made, "/files/content?path=a.txt");
    let answer = world.call(&world.reader, Method::HEAD, &path, None).await;
    assert_eq!((answer.status, answer.bytes.len()), (StatusCode::OK, 0));
    assert_eq!(answer.headers["content-length"], "5");
    assert!(answer.headers.contains_key("etag"));
}
