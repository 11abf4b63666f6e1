//! `PATCH /v1/deployments/:deployment_id`: what is given is changed, what is not stays.

use herm_types::key::Scope;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::{Answer, World, minimal};

async fn update(world: &World, deployment: &Value, body: &Value) -> Answer {
    world.clock.advance_ms(1000);
    world.patch(&World::path(deployment, ""), body).await
}

async fn updated(world: &World, deployment: &Value, body: &Value) -> Value {
    let answer = update(world, deployment, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json());
    assert_eq!(world.get(&World::path(deployment, "")).await.json(), answer.json());
    answer.json()
}

/// The deployment as it was, but for these fields and its time.
fn with(before: &Value, changes: &Value, after: &Value) -> Value {
    let mut expected = before.clone();
    expected.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    assert_ne!(before["updated_at"], after["updated_at"]);
    expected["updated_at"] = after["updated_at"].clone();
    expected
}

#[tokio::test]
async fn scalars_are_replaced_and_the_rest_stays() {
    let world = World::new().await;
    let made = world.deployment().await;
    let changes = json!({"name": "Eve", "system_prompt": "Be long.", "model": "openai/gpt-5"});
    let after = updated(&world, &made, &changes).await;
    assert_eq!(after, with(&made, &changes, &after));
    let after = updated(&world, &made, &json!({"model": null})).await;
    assert_eq!(after["model"], "anthropic/claude-sonnet-4.5", "null is the server's default");
    let listed = world.get("/v1/deployments").await.json();
    assert_eq!((&listed["data"][0]["name"], &listed["data"][0]["model"]), (&after["name"], &after["model"]));
}

#[tokio::test]
async fn maps_are_merged_by_key_and_null_removes_one() {
    let world = World::new().await;
    let mut body = minimal();
    body["metadata"] = json!({"a": "1", "b": "2"});
    body["features"] = json!({"memory": false, "dreaming": true});
    let made = world.post("/v1/deployments", &body).await.json();
    let changes = json!({"metadata": {"b": null, "c": "3", "never": null}, "features": {"memory": null}});
    let after = updated(&world, &made, &changes).await;
    assert_eq!(after["metadata"], json!({"a": "1", "c": "3"}));
    assert_eq!(after["features"]["memory"], true, "a feature that is removed is as by default");
    assert_eq!(after["features"]["dreaming"], true);
    let after = updated(&world, &made, &json!({"metadata": null, "features": null})).await;
    assert_eq!((&after["metadata"], &after["features"]["dreaming"]), (&json!({}), &json!(false)));
}

#[tokio::test]
async fn a_map_that_grows_too_large_is_refused_whole() {
    let world = World::new().await;
    let made = world.deployment().await;
    let pairs = |from: usize, to: usize| {
        (from..to).map(|number| (format!("k{number}"), json!("v"))).collect::<serde_json::Map<_, _>>()
    };
    updated(&world, &made, &json!({"metadata": pairs(0, 16)})).await;
    let refused = update(&world, &made, &json!({"metadata": pairs(16, 17), "name": "Eve"})).await;
    assert_eq!((refused.refusal().0, refused.faults()), (400, vec!["metadata".to_owned()]));
    let swapped = updated(&world, &made, &json!({"metadata": {"k0": null, "k16": "v"}})).await;
    assert_eq!((swapped["metadata"].as_object().unwrap().len(), &swapped["name"]), (16, &json!("Ada")));
}

#[tokio::test]
async fn groups_are_changed_field_by_field() {
    let world = World::new().await;
    let mut body = minimal();
    body["sandbox"] = json!({"cpu": 2, "memory_mb": 512});
    body["budget"] = json!({"max_credits_per_run": 1});
    let made = world.post("/v1/deployments", &body).await.json();
    let changes = json!({
        "sandbox": {"cpu": null, "disk_mb": 64, "type": "docker", "persistent_filesystem": true},
        "budget": {"max_credits_per_day": 5},
        "steering": {"expires_after_s": 60},
        "dreaming": {"mode": "review"},
    });
    let after = updated(&world, &made, &changes).await;
    let sandbox = json!({
        "enabled": true, "type": "docker", "persistent_filesystem": true, "engine": "local", "own_user": false, "memory_mb": 512,
        "disk_mb": 64,
    });
    assert_eq!(after["sandbox"], sandbox);
    assert_eq!(after["budget"], json!({"max_credits_per_run": 1, "max_credits_per_day": 5}));
    assert_eq!(after["steering"], json!({"expires_after_s": 60, "on_expiry": "deny"}));
    let after = updated(&world, &made, &json!({"budget": null, "steering": {"expires_after_s": null}})).await;
    assert_eq!((&after["budget"], &after["steering"]["expires_after_s"]), (&json!({}), &Value::Null));
}

#[tokio::test]
async fn what_is_chosen_once_cannot_be_changed() {
    let world = World::new().await;
    let made = world.deployment().await;
    let body = json!({
        "customer_id": "acme", "runtime": "hermes", "restore_snapshot": null, "name": null,
    });
    let refused = update(&world, &made, &body).await;
    assert_eq!(refused.refusal(), (400, "validation_error".to_owned()));
    assert_eq!(refused.faults(), ["customer_id", "runtime", "restore_snapshot", "name"]);
    let advice = &refused.json()["details"][0]["message"];
    assert!(advice.as_str().unwrap().contains("create a new deployment"), "{advice}");
    let refused = update(&world, &made, &json!({"sandbox": {"type": "local"}, "name": "Eve"})).await;
    assert_eq!((refused.refusal().0, refused.faults()), (400, vec!["sandbox.type".to_owned()]));
    let refused = update(&world, &made, &json!({"sandbox": {"persistent_filesystem": false}})).await;
    assert_eq!(refused.faults(), ["sandbox.persistent_filesystem"]);
    assert_eq!(world.get(&World::path(&made, "")).await.json(), made);
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
    let made = world.post("/v1/deployments", &body).await.json();
    body.as_object_mut().unwrap().remove("customer_id");
    for nothing in [json!({}), body, json!({"metadata": {"gone": null}})] {
        let answer = update(&world, &made, &nothing).await;
        assert_eq!(answer.json(), made, "{nothing}");
    }
}

#[tokio::test]
async fn who_may_write_need_not_read() {
    let world = World::new().await;
    let made = world.deployment().await;
    let key = world.key("default", &[Scope::DeploymentsWrite]).await;
    let skill = json!({"name": "s", "source": "inline", "content": "---\nname: a\ndescription: b\n---\n"});
    let added = world.call(&key, Method::POST, &World::path(&made, "/skills"), Some(&skill)).await;
    assert_eq!(added.status, StatusCode::CREATED, "{}", added.json());
    let path = World::path(&made, &format!("/skills/{}", added.json()["skill_id"].as_str().unwrap()));
    for (method, path) in [(Method::PATCH, World::path(&made, "")), (Method::PUT, path)] {
        let answer = world.call(&key, method, &path, Some(&json!({}))).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.json());
    }
    assert_eq!(world.call(&key, Method::GET, &World::path(&made, ""), None).await.refusal().0, 403);
}

#[tokio::test]
async fn two_updates_at_once_are_both_kept() {
    let world = World::new().await;
    let made = world.deployment().await;
    let path = World::path(&made, "");
    let (left, right) = (json!({"metadata": {"left": "1"}}), json!({"metadata": {"right": "1"}}));
    for _ in 0..20 {
        let (left, right) = tokio::join!(world.patch(&path, &left), world.patch(&path, &right));
        assert_eq!((left.status, right.status), (StatusCode::OK, StatusCode::OK));
        let after = world.get(&path).await.json();
        assert_eq!(after["metadata"], json!({"left": "1", "right": "1"}));
        updated(&world, &made, &json!({"metadata": null})).await;
    }
}

#[tokio::test]
async fn a_sandbox_that_is_switched_on_later_gets_its_engine_then() {
    let world = World::new().await;
    let mut body = minimal();
    body["sandbox"] = json!({"enabled": false});
    let made = world.post("/v1/deployments", &body).await.json();
    assert_eq!(made["sandbox"]["engine"], Value::Null);
    let after = updated(&world, &made, &json!({"sandbox": {"enabled": true}})).await;
    assert_eq!(after["sandbox"]["engine"], "local");
    let after = updated(&world, &made, &json!({"sandbox": {"enabled": false}})).await;
    assert_eq!(after["sandbox"]["engine"], "local", "what was chosen is kept");
}

#[tokio::test]
async fn only_a_deployment_in_error_is_provisioned_again() {
    let world = World::new().await;
    let made = world.deployment().await;
    let refused = world.post(&World::path(&made, "/retry"), &json!({})).await;
    assert_eq!(refused.refusal(), (409, "conflict".to_owned()));
    let id = made["deployment_id"].as_str().unwrap().parse().unwrap();
    let broken = world.store.transaction("break", move |tx| {
        Box::pin(async move {
            let mut found = herm_store::deployments::find(tx, id).await?.unwrap();
            (found.status, found.version) =
                (herm_types::deployment::DeploymentStatus::Error, found.version + 1);
            herm_store::deployments::update(tx, &found).await
        })
    });
    broken.await.unwrap();
    let message = world.post(&World::path(&made, "/messages"), &json!({"content": "hi"})).await;
    assert_eq!(message.refusal(), (409, "deployment_not_ready".to_owned()));
    let retried = world.post(&World::path(&made, "/retry"), &json!({})).await.json();
    assert_eq!(retried["status"], "ready");
}
