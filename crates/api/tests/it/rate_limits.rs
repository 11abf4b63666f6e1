//! Tests of the rate limits. Each key has separate limits for reads, writes and opening streams.

use std::num::NonZeroU32;
use std::time::Duration;

use herm_api::{Options, router};
use herm_testkit::time::FrozenTime;
use http::Method;

use crate::world::{World, minimal};

/// Creates a server with a rate limit. The clock is frozen, so a client that has reached its limit is rejected until
/// the test advances the clock.
async fn world(per_second: u32) -> (World, FrozenTime) {
    let frozen = FrozenTime::hold();
    let mut world = World::new().await;
    let options = Options { rate_limit: NonZeroU32::new(per_second), ..Options::default() };
    world.router = router(world.app.clone(), options);
    (world, frozen)
}

#[tokio::test(start_paused = true)]
async fn a_rate_limited_request_is_rejected_with_retry_after() {
    let (world, _frozen) = world(2).await;
    for _ in 0..2 {
        assert_eq!(world.get("/v1/deployments").await.status, 200);
    }
    let rejected = world.get("/v1/deployments").await;
    assert_eq!(rejected.status_and_code(), (429, "rate_limited".to_owned()));
    assert_eq!(rejected.headers["retry-after"], "1");
    assert!(rejected.headers.contains_key("x-request-id"));
    // A key that has reached its limit affects neither other keys nor paths that need no key.
    assert_eq!(world.call(&world.reader, Method::GET, "/v1/deployments", None).await.status, 200);
    assert_eq!(world.get("/healthz").await.status, 200);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(world.get("/v1/deployments").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn reads_writes_and_streams_have_separate_limits() {
    let (world, _frozen) = world(2).await;
    let deployment = world.deployment().await;
    assert_eq!(world.post("/v1/deployments", &minimal()).await.status, 201);
    assert_eq!(world.post("/v1/deployments", &minimal()).await.status, 429, "writes");
    for _ in 0..2 {
        assert_eq!(world.get(&World::path(&deployment, "")).await.status, 200, "reads");
    }
    let events = World::path(&deployment, "/events");
    let open = async || {
        let request = http::Request::builder()
            .uri(&events)
            .header("authorization", format!("Bearer {}", world.writer))
            .body(axum::body::Body::empty());
        world.send(request.unwrap()).await.status()
    };
    assert_eq!(open().await, 200, "streams");
    assert_eq!(open().await, 429, "streams are opened half as often");
}

#[tokio::test(start_paused = true)]
async fn requests_without_a_valid_key_are_limited_by_address() {
    let (world, _frozen) = world(1).await;
    assert_eq!(world.call("", Method::GET, "/v1/deployments", None).await.status, 401);
    assert_eq!(world.call("", Method::GET, "/v1/deployments", None).await.status, 429);
    assert_eq!(world.call("herm_sk_nonsense", Method::GET, "/v1/deployments", None).await.status, 429);
    // The IP address has reached its limit, but requests with a valid key from the same address are still accepted.
    assert_eq!(world.get("/v1/deployments").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limited_request_leaves_no_idempotency_record() {
    let (world, _frozen) = world(1).await;
    assert_eq!(world.post("/v1/deployments", &minimal()).await.status, 201);
    assert_eq!(world.post_once("/v1/deployments", "key", &minimal()).await.status, 429);
    tokio::time::advance(Duration::from_secs(1)).await;
    let response = world.post_once("/v1/deployments", "key", &minimal()).await;
    assert_eq!((response.status.as_u16(), response.is_replayed()), (201, false));
}
