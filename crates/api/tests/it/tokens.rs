//! Tests of `/v1/tokens`: the operations that browser tokens allow and those that they do not.

use herm_app::keys::NewKey;
use herm_types::key::Scope;
use http::Method;
use serde_json::{Value, json};

use crate::events::Stream;
use crate::world::{ApiResponse, World, minimal};

async fn create(world: &World, key: &str, body: &Value) -> ApiResponse {
    world.call(key, Method::POST, "/v1/tokens", Some(body)).await
}

fn for_chat(deployment: &Value) -> Value {
    json!({"deployment_id": deployment["deployment_id"], "scopes": ["messages:send", "deployments:read"]})
}

#[tokio::test]
async fn a_token_can_send_messages_for_15_minutes() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let response = create(&world, &world.writer, &for_chat(&deployment)).await;
    assert_eq!(response.status, 201, "{}", response.json());
    let created = response.json();
    let token = created["token"].as_str().unwrap();
    assert!(token.starts_with("herm_pk_"), "{token}");
    let expected = json!({"token": token, "key_id": created["key_id"], "deployment_id": deployment["deployment_id"],
        "scopes": ["messages:send", "deployments:read"], "created_at": "2027-01-15T08:00:00.000000Z",
        "expires_at": "2027-01-15T08:15:00.000000Z"});
    assert_eq!(created, expected);
    let send = async || {
        let body = json!({"content": "hi"});
        world
            .call(token, Method::POST, &World::path(&deployment, "/messages"), Some(&body))
            .await
            .status
            .as_u16()
    };
    assert_eq!(send().await, 202);
    let thread =
        world.call(token, Method::POST, &World::path(&deployment, "/threads"), Some(&json!({}))).await;
    assert_eq!(
        thread.status_and_code(),
        (403, "forbidden".to_owned()),
        "the token does not have threads:write"
    );
    world.clock.advance_ms(15 * 60_000);
    assert_eq!(send().await, 401);
}

#[tokio::test]
async fn a_token_sees_only_its_deployment_without_the_agents_configuration() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let other = world.deployment().await;
    let token = world.token(&deployment).await;
    let mut shown = deployment.clone();
    for hidden in ["system_prompt", "mcp_servers", "secrets"] {
        assert!(shown.as_object_mut().unwrap().remove(hidden).is_some(), "{hidden}");
    }
    let seen = world.call(&token, Method::GET, &World::path(&deployment, ""), None).await.json();
    assert_eq!(seen, shown);
    assert_eq!(world.call(&token, Method::GET, &World::path(&other, ""), None).await.status, 404);
    let listed = world.call(&token, Method::GET, "/v1/deployments", None).await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    let body = json!({"content": "hi"});
    let sent = world.call(&token, Method::POST, &World::path(&other, "/messages"), Some(&body)).await;
    assert_eq!(sent.status, 404);
}

#[tokio::test]
async fn a_token_cannot_exceed_the_key_that_creates_it() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let with = |scopes: Value| json!({"deployment_id": deployment["deployment_id"], "scopes": scopes});
    let write_only = world.key("default", &[Scope::DeploymentsWrite]).await;
    for (key, scopes, status) in [
        (&world.reader, json!(["messages:send"]), 403),
        (&world.reader, json!(["deployments:read", "files:read"]), 201),
        (&write_only, json!(["deployments:read"]), 403),
        (
            &write_only,
            json!(["messages:send", "steering:answer", "threads:write", "files:read", "files:write"]),
            201,
        ),
        (&world.other_account, json!(["messages:send"]), 404),
    ] {
        let response = create(&world, key, &with(scopes.clone())).await;
        assert_eq!(response.status, status, "{scopes}: {}", response.json());
    }
    let end = herm_types::Clock::now(&*world.clock).plus_ms(60_000);
    let short = NewKey {
        name: "short".to_owned(),
        account: "default".to_owned(),
        scopes: vec![Scope::DeploymentsRead],
        deployment_id: None,
        customer_id: Some("acme".to_owned()),
        expires_at: Some(end),
    };
    let (short, _) = world.limited_key(short).await;
    let created = create(&world, &short, &with(json!(["deployments:read"]))).await.json();
    assert_eq!(created["expires_at"], "2027-01-15T08:01:00.000000Z");
    let mut other = minimal();
    other["customer_id"] = "other".into();
    let other = world.post("/v1/deployments", &other).await.json();
    let mut outside = with(json!(["deployments:read"]));
    outside["deployment_id"] = other["deployment_id"].clone();
    assert_eq!(create(&world, &short, &outside).await.status, 404);
}

#[tokio::test]
async fn an_invalid_token_request_is_rejected_with_all_field_errors() {
    let world = World::new().await;
    let body =
        json!({"deployment_id": "dep_x", "scopes": ["deployments:write"], "expires_in_s": 86401, "ttl": 1});
    let errors = create(&world, &world.writer, &body).await.error_paths();
    assert_eq!(errors, ["deployment_id", "scopes[0]", "expires_in_s", "ttl"]);
    assert_eq!(create(&world, &world.writer, &json!({})).await.error_paths(), ["deployment_id", "scopes"]);
}

#[tokio::test]
async fn revoking_a_key_ends_its_tokens_and_their_streams() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let parent = json!({"name": "backend", "scopes": ["deployments:read", "deployments:write"]});
    let parent = world.call(&world.admin, Method::POST, "/v1/keys", Some(&parent)).await.json();
    let created = create(&world, parent["key"].as_str().unwrap(), &for_chat(&deployment)).await.json();
    let again = create(&world, parent["key"].as_str().unwrap(), &for_chat(&deployment)).await.json();
    let token = created["token"].as_str().unwrap();
    let mut stream =
        Stream::open_with(&world, token, &World::path(&deployment, "/events?after=evt_0"), None).await;
    assert_eq!(stream.next().await.unwrap().1, "evt_1");
    let revoke = async |key_id: &Value| {
        let path = format!("/v1/keys/{}", key_id.as_str().unwrap());
        world.call(&world.admin, Method::DELETE, &path, None).await.status.as_u16()
    };
    let get = async |key: &Value| {
        let path = World::path(&deployment, "");
        world.call(key.as_str().unwrap(), Method::GET, &path, None).await.status.as_u16()
    };
    assert_eq!(revoke(&again["key_id"]).await, 200, "revoking one token");
    assert_eq!((get(&again["token"]).await, get(&created["token"]).await), (401, 200));
    assert_eq!(revoke(&parent["key_id"]).await, 200);
    assert_eq!(stream.next().await, None);
    assert_eq!(get(&created["token"]).await, 401);
    let listed = world.call(&world.admin, Method::GET, "/v1/keys?limit=100", None).await.json();
    assert!(!listed.to_string().contains("browser token"), "tokens are not listed: {listed}");
}
