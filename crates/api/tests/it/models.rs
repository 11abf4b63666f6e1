//! Tests of `/v1/models`: listing the configured model providers.

use herm_api::{ModelProvider, Options, router};
use http::Method;
use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn every_provider_is_listed_with_its_known_models() {
    let mut world = World::new().await;
    let provider = |name: &str, models: &[&str], has_key| ModelProvider {
        provider: name.to_owned(),
        models: models.iter().map(|model| (*model).to_owned()).collect(),
        has_key,
    };
    let providers = vec![
        provider("anthropic", &["anthropic/claude-sonnet-4.5"], true),
        provider("openai", &[], false),
        provider("demo", &["demo/tour"], true),
    ];
    world.router = router(world.app.clone(), Options { providers, ..Options::default() });
    let listed = world.call(&world.reader, Method::GET, "/v1/models", None).await.json();
    assert_eq!(
        listed,
        json!({
            "data": [
                {"provider": "anthropic", "models": ["anthropic/claude-sonnet-4.5"], "has_key": true},
                {"provider": "openai", "models": [], "has_key": false},
                {"provider": "demo", "models": ["demo/tour"], "has_key": true},
            ],
            "next_cursor": null,
            "default_model": "anthropic/claude-sonnet-4.5",
        })
    );
    let first = world.get("/v1/models?limit=2").await.json();
    assert_eq!(first["next_cursor"], "openai");
    let rest = world.get("/v1/models?limit=2&cursor=openai").await.json();
    assert_eq!((&rest["data"][0]["provider"], &rest["next_cursor"]), (&json!("demo"), &json!(null)));
    let wrong = world.get("/v1/models?cursor=nobody&limit=0").await;
    assert_eq!(wrong.error_paths(), ["limit", "cursor"]);
}
