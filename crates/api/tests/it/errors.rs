//! Tests of the common error body and of request ids.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::json;

use crate::world::{World, minimal, read};

#[tokio::test]
async fn an_error_body_has_the_request_id_of_the_response_header() {
    let world = World::new().await;
    let response = world.get("/v1/nothing").await;
    let request_id = response.headers["x-request-id"].to_str().unwrap().to_owned();
    assert!(request_id.starts_with("req_"), "{request_id}");
    let body = response.json();
    assert_eq!((&body["error"], &body["request_id"]), (&json!("not_found"), &json!(request_id)));
    assert!(body["message"].as_str().unwrap().ends_with('.'));
}

#[tokio::test]
async fn a_valid_client_request_id_is_kept_and_an_invalid_one_is_replaced() {
    let world = World::new().await;
    for (inbound, is_kept) in
        [("req_mine-1.2", true), ("a b", false), (&"x".repeat(129), false), ("<script>", false)]
    {
        let request = Request::builder().uri("/healthz").header("x-request-id", inbound);
        let response = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.headers()["x-request-id"] == inbound, is_kept, "{inbound}");
    }
}

#[tokio::test]
async fn a_405_response_lists_the_allowed_methods() {
    let world = World::new().await;
    let response = world.call(&world.writer, Method::PUT, "/v1/deployments", Some(&json!({}))).await;
    assert_eq!(response.status_and_code(), (405, "method_not_allowed".to_owned()));
    let allowed = response.headers["allow"].to_str().unwrap();
    assert!(allowed.contains("GET") && allowed.contains("POST"), "{allowed}");
}

#[tokio::test]
async fn bodies_that_are_not_json_or_too_large_are_rejected() {
    let world = World::new().await;
    let send = async |content_type: Option<&str>, body: String| {
        let mut request = Request::builder().method(Method::POST).uri("/v1/deployments");
        request = request.header("authorization", format!("Bearer {}", world.writer));
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        read(world.send(request.body(Body::from(body)).unwrap()).await).await
    };
    let body = minimal().to_string();
    assert_eq!(send(None, body.clone()).await.status_and_code(), (415, "validation_error".to_owned()));
    assert_eq!(
        send(Some("text/plain"), body.clone()).await.status_and_code(),
        (415, "validation_error".to_owned())
    );
    let with_charset = send(Some("application/json; charset=utf-8"), body).await;
    assert_eq!(with_charset.status, StatusCode::CREATED);
    let broken = send(Some("application/json"), "{\"a\":".to_owned()).await;
    assert_eq!(broken.status_and_code(), (400, "validation_error".to_owned()));
    let large = send(Some("application/json"), format!("\"{}\"", "x".repeat(1024 * 1024))).await;
    assert_eq!(large.status_and_code(), (413, "validation_error".to_owned()));
    let deep = send(Some("application/json"), "[".repeat(100_000)).await;
    assert_eq!(deep.status_and_code(), (400, "validation_error".to_owned()));
}

#[tokio::test]
async fn a_missing_key_is_rejected_with_www_authenticate() {
    let world = World::new().await;
    let response = world.call("", Method::GET, "/v1/deployments", None).await;
    assert_eq!(response.status_and_code(), (401, "unauthorized".to_owned()));
    assert_eq!(response.headers["www-authenticate"], "Bearer");
    let request = Request::builder().uri("/v1/deployments").header("authorization", "Basic abc");
    let response = read(world.send(request.body(Body::empty()).unwrap()).await).await;
    assert_eq!(response.status_and_code().0, 401);
}
