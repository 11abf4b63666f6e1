//! Tests of listing and reading files. Paths cannot lead outside the workspace.

use std::path::PathBuf;

use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::world::{ApiResponse, World, read};

fn workspace(world: &World, deployment: &Value) -> PathBuf {
    let dir = world.workspaces_dir.join(deployment["deployment_id"].as_str().unwrap());
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

async fn content(world: &World, deployment: &Value, path: &str, headers: &[(&str, &str)]) -> ApiResponse {
    let path = World::path(deployment, &format!("/files/content?path={path}"));
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
    let deployment = world.deployment().await;
    let listed = world.get(&World::path(&deployment, "/files")).await;
    assert_eq!(listed.json(), json!({"path": "", "entries": []}));
}

#[tokio::test]
async fn entries_are_sorted_by_name_and_symbolic_links_are_listed_as_such() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let dir = workspace(&world, &deployment);
    std::fs::create_dir(dir.join("b")).unwrap();
    std::fs::write(dir.join("a.txt"), "hello").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.join("c")).unwrap();
    let listed = world.get(&World::path(&deployment, "/files?path=.")).await.json();
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
    assert_eq!(world.get(&World::path(&deployment, "/files?path=missing")).await.status_and_code().0, 404);
    assert_eq!(world.get(&World::path(&deployment, "/files?path=a.txt")).await.status_and_code().0, 400);
}

#[tokio::test]
async fn a_file_is_sent_as_an_attachment_whole_or_as_a_range() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    std::fs::write(workspace(&world, &deployment).join("page.html"), "<p>hello</p>").unwrap();
    let whole = content(&world, &deployment, "page.html", &[]).await;
    assert_eq!((whole.status, whole.bytes.as_slice()), (StatusCode::OK, b"<p>hello</p>".as_slice()));
    assert_eq!(whole.headers["content-type"], "text/html");
    assert_eq!(whole.headers["content-disposition"], "attachment; filename=\"page.html\"");
    assert_eq!(whole.headers["x-content-type-options"], "nosniff");
    let etag = whole.headers["etag"].to_str().unwrap().to_owned();
    let part =
        content(&world, &deployment, "page.html", &[("range", "bytes=3-7"), ("if-range", &etag)]).await;
    assert_eq!((part.status, part.bytes.as_slice()), (StatusCode::PARTIAL_CONTENT, b"hello".as_slice()));
    assert_eq!(part.headers["content-range"], "bytes 3-7/12");
    let unsatisfiable = content(&world, &deployment, "page.html", &[("range", "bytes=50-")]).await;
    assert_eq!(
        (unsatisfiable.status, &unsatisfiable.headers["content-range"]),
        (StatusCode::RANGE_NOT_SATISFIABLE, &"bytes */12".parse().unwrap())
    );
    assert_eq!(unsatisfiable.status_and_code().1, "validation_error");
    let several = content(&world, &deployment, "page.html", &[("range", "bytes=0-1,4-5")]).await;
    assert_eq!((several.status, several.bytes.len()), (StatusCode::OK, 12));
    let outdated =
        content(&world, &deployment, "page.html", &[("range", "bytes=0-1"), ("if-range", "\"old\"")]).await;
    assert_eq!((outdated.status, outdated.bytes.len()), (StatusCode::OK, 12));
    let weakened = format!("\"other\", W/{etag}");
    let unchanged = content(&world, &deployment, "page.html", &[("if-none-match", &weakened)]).await;
    assert_eq!(unchanged.status, StatusCode::NOT_MODIFIED);
    let unchanged = content(&world, &deployment, "page.html", &[("if-none-match", &etag)]).await;
    assert_eq!((unchanged.status, unchanged.bytes.len()), (StatusCode::NOT_MODIFIED, 0));
    std::fs::write(workspace(&world, &deployment).join("page.html"), "<p>other</p>!").unwrap();
    let changed = content(&world, &deployment, "page.html", &[("if-none-match", &etag)]).await;
    assert_eq!(changed.status, StatusCode::OK);
}

#[tokio::test]
async fn a_path_outside_the_workspace_is_rejected() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let dir = workspace(&world, &deployment);
    let secret = world.workspaces_dir.join("secret.txt");
    std::fs::write(&secret, "SECRET").unwrap();
    std::os::unix::fs::symlink(&secret, dir.join("link")).unwrap();
    std::os::unix::fs::symlink(&world.workspaces_dir, dir.join("up")).unwrap();
    // Without the server's checks, this path leads outside the workspace: the standard library follows the symbolic
    // link.
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
        let response = content(&world, &deployment, path, &[]).await;
        assert_eq!(response.status_and_code(), (400, "validation_error".to_owned()), "{path}");
        assert!(!String::from_utf8_lossy(&response.bytes).contains("SECRET"));
    }
    assert_eq!(world.get(&World::path(&deployment, "/files?path=up")).await.status_and_code().0, 400);
    assert_eq!(content(&world, &deployment, "", &[]).await.error_paths(), ["path"]);
    assert_eq!(
        content(&world, &deployment, "%252e%252e/x", &[]).await.status_and_code().0,
        404,
        "decoded once"
    );
}

#[tokio::test]
async fn head_returns_a_files_headers_without_its_content() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    std::fs::write(workspace(&world, &deployment).join("a.txt"), "hello").unwrap();
    let path = World::path(&deployment, "/files/content?path=a.txt");
    let response = world.call(&world.reader, Method::HEAD, &path, None).await;
    assert_eq!((response.status, response.bytes.len()), (StatusCode::OK, 0));
    assert_eq!(response.headers["content-length"], "5");
    assert!(response.headers.contains_key("etag"));
}
