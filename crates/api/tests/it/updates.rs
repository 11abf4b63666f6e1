//! Tests of `PATCH /v1/deployments/{deployment_id}`: only the fields in the request change.

use herm_types::key::Scope;
use herm_types::sandbox::SandboxType;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::{ABSENT_IMAGE, ApiResponse, SandboxFallback, World, minimal};

async fn update(world: &World, deployment: &Value, body: &Value) -> ApiResponse {
    world.clock.advance_ms(1000);
    world.patch(&World::path(deployment, ""), body).await
}

async fn updated(world: &World, deployment: &Value, body: &Value) -> Value {
    let response = update(world, deployment, body).await;
    assert_eq!(response.status, StatusCode::OK, "{}", response.json());
    assert_eq!(world.get(&World::path(deployment, "")).await.json(), response.json());
    response.json()
}

/// Returns the expected deployment after an update: `before` with the given changes, and the `updated_at` of `after`.
fn with(before: &Value, changes: &Value, after: &Value) -> Value {
    let mut expected = before.clone();
    expected.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    assert_ne!(before["updated_at"], after["updated_at"]);
    expected["updated_at"] = after["updated_at"].clone();
    expected
}

#[tokio::test]
async fn scalars_are_replaced_and_omitted_fields_are_unchanged() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let changes = json!({"name": "Eve", "system_prompt": "Be long.", "model": "openai/gpt-5"});
    let after = updated(&world, &deployment, &changes).await;
    assert_eq!(after, with(&deployment, &changes, &after));
    let after = updated(&world, &deployment, &json!({"model": null})).await;
    assert_eq!(after["model"], "anthropic/claude-sonnet-4.5", "null resets to the server's default");
    let listed = world.get("/v1/deployments").await.json();
    assert_eq!((&listed["data"][0]["name"], &listed["data"][0]["model"]), (&after["name"], &after["model"]));
}

#[tokio::test]
async fn maps_are_merged_by_key_and_null_removes_a_key() {
    let world = World::new().await;
    let mut body = minimal();
    body["metadata"] = json!({"a": "1", "b": "2"});
    body["features"] = json!({"memory": false, "dreaming": true});
    let deployment = world.post("/v1/deployments", &body).await.json();
    let changes = json!({"metadata": {"b": null, "c": "3", "never": null}, "features": {"memory": null}});
    let after = updated(&world, &deployment, &changes).await;
    assert_eq!(after["metadata"], json!({"a": "1", "c": "3"}));
    assert_eq!(after["features"]["memory"], true, "null resets a feature to its default");
    assert_eq!(after["features"]["dreaming"], true);
    let after = updated(&world, &deployment, &json!({"metadata": null, "features": null})).await;
    assert_eq!((&after["metadata"], &after["features"]["dreaming"]), (&json!({}), &json!(false)));
}

#[tokio::test]
async fn an_update_that_makes_a_map_too_large_is_rejected_completely() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let pairs = |from: usize, to: usize| {
        (from..to).map(|number| (format!("k{number}"), json!("v"))).collect::<serde_json::Map<_, _>>()
    };
    updated(&world, &deployment, &json!({"metadata": pairs(0, 16)})).await;
    let rejected = update(&world, &deployment, &json!({"metadata": pairs(16, 17), "name": "Eve"})).await;
    assert_eq!((rejected.status_and_code().0, rejected.error_paths()), (400, vec!["metadata".to_owned()]));
    let swapped = updated(&world, &deployment, &json!({"metadata": {"k0": null, "k16": "v"}})).await;
    assert_eq!((swapped["metadata"].as_object().unwrap().len(), &swapped["name"]), (16, &json!("Ada")));
}

#[tokio::test]
async fn groups_are_changed_field_by_field() {
    let world = World::new().await;
    let mut body = minimal();
    body["sandbox"] = json!({"cpu": 2, "memory_mb": 512});
    body["budget"] = json!({"max_credits_per_run": 1});
    let deployment = world.post("/v1/deployments", &body).await.json();
    let changes = json!({
        "sandbox": {"cpu": null, "disk_mb": 64, "type": "docker", "persistent_filesystem": true},
        "budget": {"max_credits_per_day": 5},
        "steering": {"expires_after_s": 60},
        "dreaming": {"mode": "review"},
    });
    let after = updated(&world, &deployment, &changes).await;
    let sandbox = json!({
        "enabled": true, "type": "docker", "persistent_filesystem": true, "engine": "local", "own_user": false, "memory_mb": 512,
        "disk_mb": 64,
    });
    assert_eq!(after["sandbox"], sandbox);
    assert_eq!(after["budget"], json!({"max_credits_per_run": 1, "max_credits_per_day": 5}));
    assert_eq!(after["steering"], json!({"expires_after_s": 60, "on_expiry": "deny"}));
    let after =
        updated(&world, &deployment, &json!({"budget": null, "steering": {"expires_after_s": null}})).await;
    assert_eq!((&after["budget"], &after["steering"]["expires_after_s"]), (&json!({}), &Value::Null));
}

#[tokio::test]
async fn immutable_fields_cannot_be_changed() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let body = json!({
        "customer_id": "acme", "runtime": "hermes", "restore_snapshot": null, "name": null,
    });
    let rejected = update(&world, &deployment, &body).await;
    assert_eq!(rejected.status_and_code(), (400, "validation_error".to_owned()));
    assert_eq!(rejected.error_paths(), ["customer_id", "runtime", "restore_snapshot", "name"]);
    let message = &rejected.json()["details"][0]["message"];
    assert!(message.as_str().unwrap().contains("create a new deployment"), "{message}");
    let rejected = update(&world, &deployment, &json!({"sandbox": {"type": "local"}, "name": "Eve"})).await;
    assert_eq!(
        (rejected.status_and_code().0, rejected.error_paths()),
        (400, vec!["sandbox.type".to_owned()])
    );
    let rejected = update(&world, &deployment, &json!({"sandbox": {"persistent_filesystem": false}})).await;
    assert_eq!(rejected.error_paths(), ["sandbox.persistent_filesystem"]);
    assert_eq!(world.get(&World::path(&deployment, "")).await.json(), deployment);
}

#[tokio::test]
async fn an_update_that_changes_nothing_returns_the_deployment_as_it_was() {
    let world = World::new().await;
    let mut body = minimal();
    body["skills"] =
        json!([{"name": "s", "source": "inline", "content": "---\nname: a\ndescription: b\n---\n"}]);
    body["mcp_servers"] =
        json!([{"name": "crm", "url": "https://crm.example.com/", "headers": {"X-Key": "k"}}]);
    body["metadata"] = json!({"a": "1"});
    let deployment = world.post("/v1/deployments", &body).await.json();
    body.as_object_mut().unwrap().remove("customer_id");
    for nothing in [json!({}), body, json!({"metadata": {"gone": null}})] {
        let response = update(&world, &deployment, &nothing).await;
        assert_eq!(response.json(), deployment, "{nothing}");
    }
}

#[tokio::test]
async fn a_key_without_read_access_can_write() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let key = world.key("default", &[Scope::DeploymentsWrite]).await;
    let skill = json!({"name": "s", "source": "inline", "content": "---\nname: a\ndescription: b\n---\n"});
    let added = world.call(&key, Method::POST, &World::path(&deployment, "/skills"), Some(&skill)).await;
    assert_eq!(added.status, StatusCode::CREATED, "{}", added.json());
    let path = World::path(&deployment, &format!("/skills/{}", added.json()["skill_id"].as_str().unwrap()));
    for (method, path) in [(Method::PATCH, World::path(&deployment, "")), (Method::PUT, path)] {
        let response = world.call(&key, method, &path, Some(&json!({}))).await;
        assert_eq!(response.status, StatusCode::OK, "{path}: {}", response.json());
    }
    assert_eq!(
        world.call(&key, Method::GET, &World::path(&deployment, ""), None).await.status_and_code().0,
        403
    );
}

#[tokio::test]
async fn concurrent_updates_are_both_applied() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let path = World::path(&deployment, "");
    let (left, right) = (json!({"metadata": {"left": "1"}}), json!({"metadata": {"right": "1"}}));
    for _ in 0..20 {
        let (left, right) = tokio::join!(world.patch(&path, &left), world.patch(&path, &right));
        assert_eq!((left.status, right.status), (StatusCode::OK, StatusCode::OK));
        let after = world.get(&path).await.json();
        assert_eq!(after["metadata"], json!({"left": "1", "right": "1"}));
        updated(&world, &deployment, &json!({"metadata": null})).await;
    }
}

#[tokio::test]
async fn the_engine_is_chosen_when_the_sandbox_is_first_enabled() {
    let world = World::new().await;
    let mut body = minimal();
    body["sandbox"] = json!({"enabled": false});
    let deployment = world.post("/v1/deployments", &body).await.json();
    assert_eq!(deployment["sandbox"]["engine"], Value::Null);
    let after = updated(&world, &deployment, &json!({"sandbox": {"enabled": true}})).await;
    assert_eq!(after["sandbox"]["engine"], "local");
    let after = updated(&world, &deployment, &json!({"sandbox": {"enabled": false}})).await;
    assert_eq!(after["sandbox"]["engine"], "local", "the engine does not change");
}

#[tokio::test]
async fn only_a_deployment_in_error_can_be_retried() {
    let world = World::with(SandboxFallback::Local, &[SandboxType::Docker]).await;
    let mut body = minimal();
    body["sandbox"] = json!({"image": ABSENT_IMAGE});
    let deployment = world.post("/v1/deployments", &body).await.json();
    let rejected = world.post(&World::path(&deployment, "/retry"), &json!({})).await;
    assert_eq!(rejected.status_and_code(), (409, "conflict".to_owned()));
    world.fail_provisioning(&deployment).await;
    let message = world.post(&World::path(&deployment, "/messages"), &json!({"content": "hi"})).await;
    assert_eq!(message.status_and_code(), (409, "deployment_not_ready".to_owned()));
    let retried = world.post(&World::path(&deployment, "/retry"), &json!({})).await.json();
    assert_eq!((&retried["status"], retried.get("error")), (&json!("provisioning"), None));
    // Without a sandbox, the deployment needs no image.
    world.fail_provisioning(&deployment).await;
    let disabled = update(&world, &deployment, &json!({"sandbox": {"enabled": false}})).await.json();
    assert_eq!(disabled["status"], "error");
    let retried = world.post(&World::path(&deployment, "/retry"), &json!({})).await.json();
    assert_eq!((&retried["status"], retried.get("error")), (&json!("ready"), None));
}
