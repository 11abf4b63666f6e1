//! What scripts of other origins may do.

use axum::body::Body;
use herm_api::{CorsOrigins, Options, router};
use http::{HeaderMap, Method, Request, StatusCode};

use crate::access::{Scene, table};
use crate::world::World;

const OURS: &str = "https://app.example.com";

async fn world(cors: CorsOrigins) -> World {
    let mut world = World::new().await;
    world.router = router(world.app.clone(), Options { cors, ..Options::default() });
    world
}

fn ours() -> CorsOrigins {
    CorsOrigins::List(vec!["http://localhost:3000".to_owned(), OURS.to_owned()])
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
async fn a_preflight_names_the_methods_that_each_path_has() {
    let world = world(ours()).await;
    let scene = Scene::new(&world).await;
    for row in table() {
        let (status, headers) = preflight(&world, OURS, &scene.path(&row)).await;
        assert_eq!(status, 204, "{}", row.operation);
        assert_eq!(headers["access-control-allow-origin"], OURS);
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
async fn errors_and_streams_may_be_read_too() {
    let world = world(ours()).await;
    let deployment = world.deployment().await;
    let events = World::path(&deployment, "/events");
    let (writer, nobody) = (world.writer.as_str(), "herm_sk_nonsense");
    for (key, path, expected) in [
        (writer, "/v1/deployments", 200),
        (nobody, "/v1/deployments", 401),
        (writer, "/v1/nothing", 404),
        (writer, "/v1/deployments?x=1", 400),
        (writer, "/v1/deployments?x=%ff", 400),
        (writer, events.as_str(), 200),
    ] {
        let (status, headers) = get(&world, OURS, key, path).await;
        assert_eq!(
            (status.as_u16(), &headers["access-control-allow-origin"]),
            (expected, &OURS.parse().unwrap())
        );
        let exposed = headers["access-control-expose-headers"].to_str().unwrap();
        for name in ["x-request-id", "retry-after", "idempotent-replayed", "etag"] {
            assert!(exposed.contains(name), "{exposed}");
        }
        assert_eq!(headers["vary"], "origin");
    }
}

#[tokio::test]
async fn other_origins_are_told_nothing() {
    let world = world(ours()).await;
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
async fn it_is_closed_by_default_and_open_to_all_only_by_name() {
    let closed = world(CorsOrigins::None).await;
    let (status, headers) = preflight(&closed, OURS, "/v1/deployments").await;
    assert_eq!(status, 405);
    assert!(!headers.contains_key("vary"));
    let open = world(CorsOrigins::Any).await;
    let (status, headers) = get(&open, "null", &open.writer, "/v1/deployments").await;
    assert_eq!((status.as_u16(), &headers["access-control-allow-origin"]), (200, &"*".parse().unwrap()));
    assert!(!headers.contains_key("access-control-allow-credentials"));
}

#[tokio::test]
async fn a_path_that_is_not_there_has_no_methods() {
    let world = world(ours()).await;
    let (status, headers) = preflight(&world, OURS, "/v1/nothing").await;
    assert_eq!(status, 404);
    assert!(!headers.contains_key("access-control-allow-methods"));
}
