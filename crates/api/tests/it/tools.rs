//! `…/tools`.

use serde_json::{Value, json};

use crate::world::{World, minimal};

async fn tools(world: &World, deployment: &Value) -> Vec<Value> {
    world.get(&World::path(deployment, "/tools")).await.json()["data"].as_array().unwrap().clone()
}

#[tokio::test]
async fn tools_are_listed_and_set() {
    let world = World::new().await;
    let made = world.deployment().await;
    let shell = json!({"name": "shell", "origin": "builtin", "enabled": true, "permission": "always_allow"});
    assert_eq!(tools(&world, &made).await[0], shell);
    let path = World::path(&made, "/tools/shell");
    let set = world.patch(&path, &json!({"permission": "always_ask"})).await.json();
    assert_eq!(
        set,
        json!({"name": "shell", "origin": "builtin", "enabled": true, "permission": "always_ask"})
    );
    let set = world.patch(&path, &json!({"enabled": false})).await.json();
    assert_eq!((&set["enabled"], &set["permission"]), (&json!(false), &json!("always_ask")));
    assert_eq!(tools(&world, &made).await[0], set);
    world.patch(&path, &json!({"enabled": true, "permission": "always_allow"})).await;
    assert_eq!(tools(&world, &made).await[0], shell);
    let refused = world.patch(&path, &json!({"enabled": 1, "permission": "maybe", "origin": "me"})).await;
    assert_eq!(refused.faults(), ["enabled", "permission", "origin"]);
    assert_eq!(world.patch(&World::path(&made, "/tools/hammer"), &json!({})).await.refusal().0, 404);
}

#[tokio::test]
async fn an_agent_without_a_sandbox_can_only_ask_and_without_steering_not_even_that() {
    let world = World::new().await;
    let mut body = minimal();
    body["sandbox"] = json!({"enabled": false});
    let made = world.post("/v1/deployments", &body).await.json();
    let asks =
        json!({"name": "ask_human", "origin": "builtin", "enabled": true, "permission": "always_allow"});
    assert_eq!(tools(&world, &made).await, [asks]);
    world.patch(&World::path(&made, ""), &json!({"features": {"steering": false}})).await;
    assert_eq!(tools(&world, &made).await, [] as [Value; 0]);
}

#[tokio::test]
async fn the_tools_that_a_server_is_limited_to_are_known_and_keep_their_settings() {
    let world = World::new().await;
    let mut body = minimal();
    let server = |permission: &str| json!({"name": "crm", "url": "https://crm.example.com", "tools": ["find", "drop"], "permission": permission});
    body["mcp_servers"] = json!([server("always_ask")]);
    let made = world.post("/v1/deployments", &body).await.json();
    let of_server = async || {
        let all = tools(&world, &made).await;
        all.into_iter().filter(|tool| tool["origin"] == "crm").collect::<Vec<_>>()
    };
    assert_eq!(of_server().await[0]["name"], "crm.find");
    assert_eq!(of_server().await[1]["permission"], "always_ask", "the server's");
    world.patch(&World::path(&made, "/tools/crm.drop"), &json!({"permission": "deny"})).await;
    world.patch(&World::path(&made, ""), &json!({"mcp_servers": [server("always_allow")]})).await;
    let permissions: Vec<Value> =
        of_server().await.into_iter().map(|tool| tool["permission"].clone()).collect();
    assert_eq!(permissions, ["always_allow", "deny"]);
}
