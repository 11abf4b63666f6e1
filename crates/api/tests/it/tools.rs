//! Tests of `…/tools`: listing tools and changing their settings.

use serde_json::{Value, json};

use crate::world::{World, minimal};

async fn tools(world: &World, deployment: &Value) -> Vec<Value> {
    world.get(&World::path(deployment, "/tools")).await.json()["data"].as_array().unwrap().clone()
}

#[tokio::test]
async fn tools_can_be_listed_and_updated() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let shell = json!({"name": "shell", "origin": "builtin", "enabled": true, "permission": "always_allow"});
    assert_eq!(tools(&world, &deployment).await[0], shell);
    let path = World::path(&deployment, "/tools/shell");
    let set = world.patch(&path, &json!({"permission": "always_ask"})).await.json();
    assert_eq!(
        set,
        json!({"name": "shell", "origin": "builtin", "enabled": true, "permission": "always_ask"})
    );
    let set = world.patch(&path, &json!({"enabled": false})).await.json();
    assert_eq!((&set["enabled"], &set["permission"]), (&json!(false), &json!("always_ask")));
    assert_eq!(tools(&world, &deployment).await[0], set);
    world.patch(&path, &json!({"enabled": true, "permission": "always_allow"})).await;
    assert_eq!(tools(&world, &deployment).await[0], shell);
    let rejected = world.patch(&path, &json!({"enabled": 1, "permission": "maybe", "origin": "me"})).await;
    assert_eq!(rejected.error_paths(), ["enabled", "permission", "origin"]);
    assert_eq!(
        world.patch(&World::path(&deployment, "/tools/hammer"), &json!({})).await.status_and_code().0,
        404
    );
}

#[tokio::test]
async fn an_agent_without_a_sandbox_has_only_ask_human_and_without_steering_no_tools() {
    let world = World::new().await;
    let mut body = minimal();
    body["sandbox"] = json!({"enabled": false});
    let deployment = world.post("/v1/deployments", &body).await.json();
    let asks =
        json!({"name": "ask_human", "origin": "builtin", "enabled": true, "permission": "always_allow"});
    assert_eq!(tools(&world, &deployment).await, [asks]);
    world.patch(&World::path(&deployment, ""), &json!({"features": {"steering": false}})).await;
    assert_eq!(tools(&world, &deployment).await, [] as [Value; 0]);
}

#[tokio::test]
async fn the_allowlisted_tools_of_an_mcp_server_are_listed_and_keep_their_settings() {
    let world = World::new().await;
    let mut body = minimal();
    let server = |permission: &str| json!({"name": "crm", "url": "https://crm.example.com", "tools": ["find", "drop"], "permission": permission});
    body["mcp_servers"] = json!([server("always_ask")]);
    let deployment = world.post("/v1/deployments", &body).await.json();
    let of_server = async || {
        let all = tools(&world, &deployment).await;
        all.into_iter().filter(|tool| tool["origin"] == "crm").collect::<Vec<_>>()
    };
    assert_eq!(of_server().await[0]["name"], "crm.find");
    assert_eq!(of_server().await[1]["permission"], "always_ask", "the server's permission");
    world.patch(&World::path(&deployment, "/tools/crm.drop"), &json!({"permission": "deny"})).await;
    world.patch(&World::path(&deployment, ""), &json!({"mcp_servers": [server("always_allow")]})).await;
    let permissions: Vec<Value> =
        of_server().await.into_iter().map(|tool| tool["permission"].clone()).collect();
    assert_eq!(permissions, ["always_allow", "deny"]);
}
