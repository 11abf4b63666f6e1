//! Tests of CORS: scripts of allowed origins can call the API, and scripts of other origins cannot.

use axum::body::Body;
use herm_api::{CorsOrigins, Options, router};
use http::{HeaderMap, Method, Request, StatusCode};

use crate::access::{Fixture, table};
use crate::world::World;

const ALLOWED_ORIGIN: &str = "https://app.example.com";

async fn world(cors: CorsOrigins) -> World {
    let mut world = World::new().await;
    world.router = router(world.app.clone(), Options { cors, ..Options::default() });
    world
}

fn allowed_origins() -> CorsOrigins {
    CorsOrigins::List(vec!["http://localhost:3000".to_owned(), ALLOWED_ORIGIN.to_owned()])
}

async fn preflight(world: &World, origin: &str, path: &str) -> (StatusCode, HeaderMap) {
    let request = Request::builder()
        .method(Method::OPTIONS)
        .uri(path)
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type");
    let response = world.send(request.body(Body::empty()).unwrap()).await;
    (response.status(), response.headers().clone())
}

async fn get(world: &World, origin: &str, key: &str, path: &str) -> (StatusCode, HeaderMap) {
    let request = Request::builder()
        .uri(path)
        .header("origin", origin)
        .header("authorization", format!("Bearer {key}"));
    let response = world.send(request.body(Body::empty()).unwrap()).await;
    (response.status(), response.headers().clone())
}

#[tokio::test]
async fn a_preflight_response_lists_the_methods_of_the_path() {
    let world = world(allowed_origins()).await;
    let fixture = Fixture::new(&world).await;
    for row in table() {
        let (status, headers) = preflight(&world, ALLOWED_ORIGIN, &fixture.path(&row)).await;
        assert_eq!(status, 204, "{}", row.operation);
        assert_eq!(headers["access-control-allow-origin"], ALLOWED_ORIGIN);
        let methods = headers["access-control-allow-methods"].to_str().unwrap();
        assert!(
            methods.split(',').any(|method| method == row.method.as_str()),
            "{}: {methods}",
            row.operation
        );
        let allowed = headers["access-control-allow-headers"].to_str().unwrap();
        assert!(
            ["authorization", "content-type", "idempotency-key"].iter().all(|name| allowed.contains(name))
        );
        assert!(!headers.contains_key("access-control-allow-credentials"));
        assert!(headers.contains_key("x-request-id"));
    }
}

#[tokio::test]
async fn allowed_origins_can_read_errors_and_streams() {
    let world = world(allowed_origins()).await;
    let deployment = world.deployment().await;
    let events = World::path(&deployment, "/events");
    let (writer, invalid_key) = (world.writer.as_str(), "herm_sk_nonsense");
    for (key, path, expected) in [
        (writer, "/v1/deployments", 200),
        (invalid_key, "/v1/deployments", 401),
        (writer, "/v1/nothing", 404),
        (writer, "/v1/deployments?x=1", 400),
        (writer, "/v1/deployments?x=%ff", 400),
        (writer, events.as_str(), 200),
    ] {
        let (status, headers) = get(&world, ALLOWED_ORIGIN, key, path).await;
        assert_eq!(
            (status.as_u16(), &headers["access-control-allow-origin"]),
            (expected, &ALLOWED_ORIGIN.parse().unwrap())
        );
        let exposed = headers["access-control-expose-headers"].to_str().unwrap();
        for name in ["x-request-id", "retry-after", "idempotent-replayed", "etag"] {
            assert!(exposed.contains(name), "{exposed}");
        }
        assert_eq!(headers["vary"], "origin");
    }
}

#[tokio::test]
async fn other_origins_get_no_cors_headers() {
    let world = world(allowed_origins()).await;
    for origin in
        ["https://evil.example.com", "http://app.example.com", "https://app.example.com:8443", "null", ""]
    {
        let (status, headers) = preflight(&world, origin, "/v1/deployments").await;
        assert_eq!(status, 405, "{origin}");
        assert!(!headers.keys().any(|name| name.as_str().starts_with("access-control")), "{origin}");
        let (_, headers) = get(&world, origin, &world.writer, "/v1/deployments").await;
        assert!(!headers.keys().any(|name| name.as_str().starts_with("access-control")), "{origin}");
    }
}

#[tokio::test]
async fn cors_is_disabled_by_default_and_can_allow_any_origin() {
    let closed = world(CorsOrigins::None).await;
    let (status, headers) = preflight(&closed, ALLOWED_ORIGIN, "/v1/deployments").await;
    assert_eq!(status, 405);
    assert!(!headers.contains_key("vary"));
    let open = world(CorsOrigins::Any).await;
    let (status, headers) = get(&open, "null", &open.writer, "/v1/deployments").await;
    assert_eq!((status.as_u16(), &headers["access-control-allow-origin"]), (200, &"*".parse().unwrap()));
    assert!(!headers.contains_key("access-control-allow-credentials"));
}

#[tokio::test]
async fn a_preflight_of_an_unknown_path_is_not_found() {
    let world = world(allowed_origins()).await;
    let (status, headers) = preflight(&world, ALLOWED_ORIGIN, "/v1/nothing").await;
    assert_eq!(status, 404);
    assert!(!headers.contains_key("access-control-allow-methods"));
}
