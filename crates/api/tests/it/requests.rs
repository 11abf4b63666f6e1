//! Tests of behavior that all operations of the OpenAPI document have in common.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::{Body, Bytes};
use futures_util::{StreamExt as _, stream};
use herm_api::{Options, router};
use http::{HeaderValue, Method, Request};
use serde_json::{Value, json};

use crate::access::{Fixture, table};
use crate::world::{ApiResponse, World, minimal, read};

/// Maps each path of the access table to the methods that it supports.
async fn paths(world: &World) -> BTreeMap<String, BTreeSet<Method>> {
    let fixture = Fixture::new(world).await;
    let mut paths: BTreeMap<String, BTreeSet<Method>> = BTreeMap::new();
    for row in table() {
        let path = fixture.path(&row).split('?').next().unwrap().to_owned();
        paths.entry(path).or_default().insert(row.method);
    }
    paths
}

#[tokio::test]
async fn every_path_rejects_other_methods_and_lists_its_own() {
    let world = World::new().await;
    for (path, methods) in paths(&world).await {
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS]
        {
            if methods.contains(&method) {
                continue;
            }
            let response = world.call(&world.writer, method.clone(), &path, None).await;
            assert_eq!(response.status_and_code(), (405, "method_not_allowed".to_owned()), "{method} {path}");
            let allowed: BTreeSet<Method> = response.headers["allow"]
                .to_str()
                .unwrap()
                .split(',')
                .map(|name| name.parse().unwrap())
                .collect();
            assert!(methods.is_subset(&allowed), "{path}: {allowed:?}");
        }
    }
}

#[tokio::test]
async fn head_responds_like_get_without_the_body() {
    let world = World::new().await;
    for (path, methods) in paths(&world).await {
        let head = world.call(&world.writer, Method::HEAD, &path, None).await;
        assert_eq!(head.bytes, b"", "{path}");
        if methods.contains(&Method::GET) {
            assert_ne!(head.status, 405, "{path}");
        } else {
            assert_eq!(head.status, 405, "{path}");
            assert!(head.headers.contains_key("content-length"), "{path}");
        }
        assert!(head.headers.contains_key("x-request-id"), "{path}");
    }
    let get = world.get("/v1/models").await;
    let head = world.call(&world.writer, Method::HEAD, "/v1/models", None).await;
    assert_eq!(head.headers["content-length"], get.bytes.len().to_string());
}

#[tokio::test]
async fn a_path_with_a_trailing_slash_is_not_found() {
    let world = World::new().await;
    for (path, methods) in paths(&world).await {
        for method in methods {
            let response = world.call(&world.writer, method.clone(), &format!("{path}/"), None).await;
            assert_eq!(response.status_and_code(), (404, "not_found".to_owned()), "{method} {path}/");
        }
    }
}

#[tokio::test]
async fn every_operation_rejects_unknown_query_parameters() {
    let world = World::new().await;
    let fixture = Fixture::new(&world).await;
    for row in table() {
        let path = fixture.path(&row);
        let path = format!("{path}{}colour=red", if path.contains('?') { '&' } else { '?' });
        let response = world.call(&world.writer, row.method, &path, row.body.as_ref()).await;
        assert_eq!(response.status_and_code(), (400, "validation_error".to_owned()), "{}", row.operation);
        assert!(
            response.error_paths().contains(&"colour".to_owned()),
            "{}: {}",
            row.operation,
            response.json()
        );
    }
}

#[tokio::test]
async fn a_path_or_query_that_is_not_valid_text_is_rejected() {
    let world = World::new().await;
    for path in [
        "/v1/deployments/%ff",
        "/v1/deployments/%00",
        "/v1/nothing/%c3%28",
        "/v1/deployments?customer_id=%ff",
        "/v1/deployments?customer_id=%00",
        "/v1/deployments?%fe=1",
    ] {
        assert_eq!(world.get(path).await.status_and_code(), (400, "validation_error".to_owned()), "{path}");
    }
    assert_eq!(world.get("/v1/deployments?customer_id=caf%C3%A9").await.status, 200);
}

#[tokio::test]
async fn a_hostile_request_id_is_replaced() {
    let world = World::new().await;
    let long = "x".repeat(100_000);
    for inbound in ["", " ", "a b", "a\tb", "\u{e9}", "<script>", "a\"b", "../../etc", "a,b", "a:b", &long] {
        let value = HeaderValue::from_bytes(inbound.as_bytes()).unwrap();
        let response = with_request_id(&world, &[value]).await;
        let request_id = response.headers["x-request-id"].to_str().unwrap();
        assert!(request_id.starts_with("req_") && request_id.len() < 64, "{inbound:?}: {request_id}");
        assert_eq!(response.headers.get_all("x-request-id").iter().count(), 1);
        assert_eq!(response.json()["request_id"], request_id);
    }
    let raw = HeaderValue::from_bytes(b"\xff\xfe").unwrap();
    assert!(
        with_request_id(&world, &[raw]).await.headers["x-request-id"].to_str().unwrap().starts_with("req_")
    );
    let valid = |text| HeaderValue::from_str(text).unwrap();
    assert_eq!(with_request_id(&world, &[valid("trace-1.2_3")]).await.headers["x-request-id"], "trace-1.2_3");
    let longest = "y".repeat(128);
    assert_eq!(with_request_id(&world, &[valid(&longest)]).await.headers["x-request-id"], longest);
    // If a client sends two request ids, the server generates its own id, because it is not clear which of the two to
    // use.
    let two = with_request_id(&world, &[valid("one"), valid("two")]).await;
    assert!(two.headers["x-request-id"].to_str().unwrap().starts_with("req_"));
}

async fn with_request_id(world: &World, values: &[HeaderValue]) -> ApiResponse {
    let request = Request::builder().uri("/v1/nothing");
    let request = values.iter().fold(request, |request, value| request.header("x-request-id", value));
    read(world.send(request.body(Body::empty()).unwrap()).await).await
}

async fn post(world: &World, headers: &[(&str, &str)], body: impl Into<Body>) -> ApiResponse {
    let request = Request::builder()
        .method(Method::POST)
        .uri("/v1/deployments")
        .header("authorization", format!("Bearer {}", world.writer));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    read(world.send(request.body(body.into()).unwrap()).await).await
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn every_duplicate_key_of_a_body_is_listed() {
    let world = World::new().await;
    let body = r#"{"customer_id": "a", "name": "b", "system_prompt": "c", "name": "d", "features": {"memory": true, "memory": false}}"#;
    let response = post(&world, &[JSON], body).await;
    assert_eq!(
        (response.status_and_code().0, response.error_paths()),
        (400, vec!["name".to_owned(), "features.memory".to_owned()])
    );
}

#[tokio::test]
async fn invalid_json_is_rejected_with_its_position() {
    let world = World::new().await;
    let response = post(&world, &[JSON], "{\"name\":\n  tru}").await;
    assert_eq!(response.status_and_code(), (400, "validation_error".to_owned()));
    assert!(response.json()["message"].as_str().unwrap().contains("line 2 column"), "{}", response.json());
    assert_eq!(post(&world, &[JSON], vec![b'"', 0xff, b'"']).await.status_and_code().0, 400);
    assert_eq!(post(&world, &[JSON], "").await.status_and_code().0, 400);
    assert_eq!(post(&world, &[JSON], "{} {}").await.status_and_code().0, 400);
}

#[tokio::test]
async fn a_body_with_a_content_encoding_is_rejected() {
    let world = World::new().await;
    let body = minimal().to_string();
    for coding in ["gzip", "br", "deflate, gzip", "zstd"] {
        let response = post(&world, &[JSON, ("content-encoding", coding)], body.clone()).await;
        assert_eq!(response.status_and_code(), (415, "validation_error".to_owned()), "{coding}");
    }
    assert_eq!(post(&world, &[JSON, ("content-encoding", "Identity")], body).await.status, 201);
}

#[tokio::test]
async fn the_operator_sets_the_maximum_body_size() {
    let mut world = World::new().await;
    let body = minimal().to_string();
    let exactly = Options { max_json_bytes: body.len(), ..Options::default() };
    world.router = router(world.app.clone(), exactly);
    assert_eq!(post(&world, &[JSON], body.clone()).await.status, 201);
    assert_eq!(
        post(&world, &[JSON], format!("{body} ")).await.status_and_code(),
        (413, "validation_error".to_owned())
    );
    // The maximum size also applies to a chunked body without a Content-Length.
    let chunks =
        stream::iter([body.clone(), " ".to_owned()]).map(|chunk| Ok::<_, std::io::Error>(Bytes::from(chunk)));
    assert_eq!(post(&world, &[JSON], Body::from_stream(chunks)).await.status_and_code().0, 413);
}

#[tokio::test]
async fn the_number_of_listed_field_errors_is_limited() {
    let world = World::new().await;
    let fields: serde_json::Map<String, Value> = (0..50_000).map(|n| (format!("f{n}"), json!(1))).collect();
    let response = world.post("/v1/deployments", &Value::Object(fields)).await;
    assert_eq!(response.status_and_code().0, 400);
    assert_eq!(response.error_paths().len(), 101);
    assert!(response.bytes.len() < 20_000, "{}", response.bytes.len());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_times_out() {
    let world = World::new().await;
    for extra in [None, Some(("idempotency-key", "slow"))] {
        let incomplete =
            stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{"))]).chain(stream::pending());
        let headers: Vec<_> = [Some(JSON), extra].into_iter().flatten().collect();
        let response = post(&world, &headers, Body::from_stream(incomplete)).await;
        assert_eq!(response.status_and_code(), (408, "validation_error".to_owned()));
    }
    let broken = stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("connection reset"))]);
    assert_eq!(post(&world, &[JSON], Body::from_stream(broken)).await.status_and_code().0, 400);
}
