//! Requests a second: each key and class has its own allowance.

use std::num::NonZeroU32;
use std::time::Duration;

use herm_api::{Options, router};
use http::Method;

use crate::time::StandingTime;
use crate::world::{World, minimal};

/// A world in which time stands still and so many requests a second are allowed.
async fn world(per_second: u32) -> (World, StandingTime) {
    let still = StandingTime::hold();
    let mut world = World::new().await;
    let options = Options { rate_limit: NonZeroU32::new(per_second), ..Options::default() };
    world.router = router(world.app.clone(), options);
    (world, still)
}

#[tokio::test(start_paused = true)]
async fn what_comes_too_fast_is_told_when_to_come_back() {
    let (world, _still) = world(2).await;
    for _ in 0..2 {
        assert_eq!(world.get("/v1/deployments").await.status, 200);
    }
    let refused = world.get("/v1/deployments").await;
    assert_eq!(refused.refusal(), (429, "rate_limited".to_owned()));
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(refused.headers.contains_key("x-request-id"));
    // Others are not touched, nor is what needs no key.
    assert_eq!(world.call(&world.reader, Method::GET, "/v1/deployments", None).await.status, 200);
    assert_eq!(world.get("/healthz").await.status, 200);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(world.get("/v1/deployments").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn each_class_has_its_own_allowance() {
    let (world, _still) = world(2).await;
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
async fn who_has_no_key_is_limited_by_address() {
    let (world, _still) = world(1).await;
    assert_eq!(world.call("", Method::GET, "/v1/deployments", None).await.status, 401);
    assert_eq!(world.call("", Method::GET, "/v1/deployments", None).await.status, 429);
    assert_eq!(world.call("herm_sk_nonsense", Method::GET, "/v1/deployments", None).await.status, 429);
    // A good key from the same address is none the worse for it.
    assert_eq!(world.get("/v1/deployments").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_its_rate_leaves_no_idempotency_record() {
    let (world, _still) = world(1).await;
    assert_eq!(world.post("/v1/deployments", &minimal()).await.status, 201);
    assert_eq!(world.post_once("/v1/deployments", "key", &minimal()).await.status, 429);
    tokio::time::advance(Duration::from_secs(1)).await;
    let answer = world.post_once("/v1/deployments", "key", &minimal()).await;
    assert_eq!((answer.status.as_u16(), answer.is_replayed()), (201, false));
}
