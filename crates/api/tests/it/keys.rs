//! Tests of `/v1/keys`: creating keys within the restrictions of the caller's key, listing keys, and revoking them.

use std::sync::Arc;

use herm_app::keys::NewKey;
use herm_store::{DatabaseClock, Location, Store};
use herm_types::KeyId;
use herm_types::key::Scope;
use http::Method;
use serde_json::{Value, json};

use crate::events::Stream;
use crate::world::{ApiResponse, World, minimal};

async fn create(world: &World, key: &str, body: &Value) -> ApiResponse {
    world.call(key, Method::POST, "/v1/keys", Some(body)).await
}

async fn revoke(world: &World, key_id: &Value) -> ApiResponse {
    let path = format!("/v1/keys/{}", key_id.as_str().unwrap());
    world.call(&world.admin, Method::DELETE, &path, None).await
}

fn limited(scopes: &[Scope]) -> NewKey {
    NewKey {
        name: "limited".to_owned(),
        account: "default".to_owned(),
        scopes: scopes.to_vec(),
        deployment_id: None,
        customer_id: None,
        expires_at: None,
    }
}

#[tokio::test]
async fn a_key_is_shown_once_and_grants_only_its_scopes() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let body = json!({"name": "reports", "scopes": ["deployments:read", "deployments:read"],
        "customer_id": "acme", "expires_at": "2027-01-15T09:00:00Z"});
    let response = create(&world, &world.admin, &body).await;
    assert_eq!(response.status, 201, "{}", response.json());
    let key = response.json();
    let text = key["key"].as_str().unwrap();
    assert!(text.starts_with("herm_sk_"), "{text}");
    let expected = json!({"key_id": key["key_id"], "account_id": key["account_id"], "name": "reports",
        "scopes": ["deployments:read"], "customer_id": "acme", "created_at": "2027-01-15T08:00:00.000000Z",
        "expires_at": "2027-01-15T09:00:00.000000Z", "key": text});
    assert_eq!(key, expected);
    assert_eq!(world.call(text, Method::GET, &World::path(&deployment, ""), None).await.status, 200);
    assert_eq!(world.call(text, Method::POST, "/v1/deployments", Some(&minimal())).await.status, 403);

    let listed = world.call(&world.admin, Method::GET, "/v1/keys", None).await;
    assert_eq!(listed.json()["data"][0]["key_id"], key["key_id"]);
    assert!(!listed.json().to_string().contains(text));
    world.clock.advance_ms(3_600_000);
    assert_eq!(world.call(text, Method::GET, &World::path(&deployment, ""), None).await.status, 401);
}

#[tokio::test]
async fn an_invalid_key_is_rejected_with_all_field_errors() {
    let world = World::new().await;
    let body = json!({"name": "", "scopes": ["deployments:read", "messages:send", 7], "deployment_id": "dep_1",
        "customer_id": "", "expires_at": "2027-01-15T08:00:00Z", "expires": "30d"});
    let response = create(&world, &world.admin, &body).await;
    assert_eq!(response.status_and_code(), (400, "validation_error".to_owned()));
    let expected =
        ["name", "scopes[1]", "scopes[2]", "deployment_id", "customer_id", "expires_at", "expires"];
    assert_eq!(response.error_paths(), expected);
    assert_eq!(create(&world, &world.admin, &json!({})).await.error_paths(), ["name", "scopes"]);
    let none = json!({"name": "n", "scopes": [], "expires_at": "tomorrow"});
    assert_eq!(create(&world, &world.admin, &none).await.error_paths(), ["scopes", "expires_at"]);
}

#[tokio::test]
async fn a_restriction_to_a_missing_deployment_or_to_another_customer_is_rejected() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let theirs =
        world.call(&world.other_account, Method::POST, "/v1/deployments", Some(&minimal())).await.json();
    let limited_to = |deployment: &Value| json!({"name": "n", "scopes": ["deployments:read"], "deployment_id": deployment["deployment_id"]});
    assert_eq!(create(&world, &world.admin, &limited_to(&theirs)).await.status_and_code().0, 404);
    let mut both = limited_to(&deployment);
    assert_eq!(create(&world, &world.admin, &both).await.status, 201);
    both["customer_id"] = "other".into();
    assert_eq!(create(&world, &world.admin, &both).await.error_paths(), ["customer_id"]);
}

#[tokio::test]
async fn a_restricted_admin_cannot_create_see_or_revoke_a_less_restricted_key() {
    let world = World::new().await;
    let ours = world.deployment().await;
    let mut other = minimal();
    other["customer_id"] = "other".into();
    let other = world.post("/v1/deployments", &other).await.json();
    let id = |deployment: &Value| deployment["deployment_id"].clone();
    let our_id = ours["deployment_id"].as_str().unwrap().parse().unwrap();
    let (of_deployment, _) =
        world.limited_key(NewKey { deployment_id: Some(our_id), ..limited(&[Scope::Admin]) }).await;
    let (of_customer, _) =
        world.limited_key(NewKey { customer_id: Some("acme".to_owned()), ..limited(&[Scope::Admin]) }).await;
    let end = herm_types::Clock::now(&*world.clock).plus_ms(60_000);
    let (ending, _) = world.limited_key(NewKey { expires_at: Some(end), ..limited(&[Scope::Admin]) }).await;
    let with = |limits: Value| {
        let mut body = json!({"name": "n", "scopes": ["admin"]});
        body.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
        body
    };
    for (key, limits, status) in [
        (&of_deployment, json!({}), 403),
        (&of_deployment, json!({"customer_id": "acme"}), 403),
        (&of_deployment, json!({"deployment_id": id(&other)}), 403),
        (&of_deployment, json!({"deployment_id": id(&ours)}), 201),
        (&of_customer, json!({}), 403),
        (&of_customer, json!({"customer_id": "other"}), 403),
        (&of_customer, json!({"deployment_id": id(&other)}), 404),
        (&of_customer, json!({"customer_id": "acme"}), 201),
        (&of_customer, json!({"deployment_id": id(&ours)}), 201),
        (&ending, json!({}), 403),
        (&ending, json!({"expires_at": "2027-01-15T08:01:01Z"}), 403),
        (&ending, json!({"expires_at": "2027-01-15T08:01:00Z"}), 201),
    ] {
        let response = create(&world, key, &with(limits.clone())).await;
        assert_eq!(response.status, status, "{limits}: {}", response.json());
    }
    // The restricted key can neither list nor revoke an unrestricted key.
    let unrestricted = create(&world, &world.admin, &with(json!({}))).await.json();
    for key in [&of_deployment, &of_customer] {
        let listed = world.call(key, Method::GET, "/v1/keys?limit=100", None).await.json();
        let keys = listed["data"].as_array().unwrap();
        assert!(
            keys.len() >= 2 && keys.iter().all(|key| key["key_id"] != unrestricted["key_id"]),
            "{listed}"
        );
        let path = format!("/v1/keys/{}", unrestricted["key_id"].as_str().unwrap());
        assert_eq!(world.call(key, Method::DELETE, &path, None).await.status, 404);
    }
}

#[tokio::test]
async fn keys_are_listed_newest_first_in_pages() {
    let world = World::new().await;
    let body = json!({"name": "n", "scopes": ["usage:read"]});
    let mut created = Vec::new();
    for _ in 0..4 {
        created.push(create(&world, &world.admin, &body).await.json()["key_id"].clone());
    }
    created.reverse();
    let (mut listed, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/keys?limit=2{cursor}");
        let page = world.call(&world.admin, Method::GET, &path, None).await.json();
        listed.extend(page["data"].as_array().unwrap().iter().map(|key| key["key_id"].clone()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
        create(&world, &world.admin, &body).await;
    }
    // The list contains the created keys and the three keys that `World` creates in this account, but not the key of
    // the other account.
    assert_eq!((&listed[..4], listed.len()), (&created[..], 7));
    let rejected = world.call(&world.admin, Method::GET, "/v1/keys?cursor=x&limit=0&q=1", None).await;
    assert_eq!(rejected.error_paths(), ["limit", "cursor", "q"]);
}

#[tokio::test]
async fn revoking_a_key_ends_its_streams_and_access_immediately() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let key =
        create(&world, &world.admin, &json!({"name": "n", "scopes": ["deployments:read"]})).await.json();
    let text = key["key"].as_str().unwrap();
    let mut stream =
        Stream::open_with(&world, text, &World::path(&deployment, "/events?after=evt_0"), None).await;
    let mut others =
        Stream::open_with(&world, &world.reader, &World::path(&deployment, "/events"), None).await;
    assert_eq!(stream.next().await.unwrap().1, "evt_1");
    let response = revoke(&world, &key["key_id"]).await;
    assert_eq!(response.json(), json!({"key_id": key["key_id"], "status": "revoked"}));
    world.post(&World::path(&deployment, "/messages"), &json!({"content": "unseen"})).await;
    assert_eq!(stream.next().await, None, "pending events are not sent either");
    assert_eq!(others.next().await.unwrap().1, "evt_2", "another key's stream continues");
    assert_eq!(world.call(text, Method::GET, &World::path(&deployment, ""), None).await.status, 401);
    assert_eq!(revoke(&world, &key["key_id"]).await.status, 200, "it stays revoked");
    let listed = world.call(&world.admin, Method::GET, "/v1/keys", None).await.json();
    assert_eq!(listed["data"][0]["revoked_at"], "2027-01-15T08:00:00.000000Z");
}

/// Tokio's paused clock jumps to the next timer when all tasks are idle, so that the test does not wait in real time.
#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_another_process_revokes_its_key() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let (key, info) = world.limited_key(limited(&[Scope::DeploymentsRead])).await;
    let mut stream = Stream::open_with(&world, &key, &World::path(&deployment, "/events"), None).await;
    let other_store = Store::open(herm_store::Options {
        location: Location::Sqlite(world.workspaces_dir.parent().unwrap().to_owned()),
        clock: Arc::clone(&world.clock) as _,
        database_clock: DatabaseClock::FromOptions,
        migrate: false,
        exclusive: false,
    })
    .await
    .unwrap();
    assert!(herm_app::keys::revoke(&other_store, info.key_id).await.unwrap());
    assert_eq!(stream.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_its_key_expires() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let end = herm_types::Clock::now(&*world.clock).plus_ms(60_000);
    let new = NewKey { expires_at: Some(end), ..limited(&[Scope::DeploymentsRead]) };
    let (key, _) = world.limited_key(new).await;
    // The stream has no event id to resume from, so the server does not read the event log. Such a read takes real
    // time, and Tokio's paused clock would jump to the next timer while the test waits for it.
    let mut stream = Stream::open_with(&world, &key, &World::path(&deployment, "/events"), None).await;
    world.clock.advance_ms(60_000);
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn revoking_an_unknown_key_is_not_found() {
    let world = World::new().await;
    let unknown: KeyId = world.ids.next();
    for id in [unknown.to_string(), "key_1".to_owned(), "x".to_owned()] {
        assert_eq!(revoke(&world, &json!(id)).await.status_and_code(), (404, "not_found".to_owned()));
    }
}

/// Neither the API nor the command line creates keys with an empty `customer_id`, but an earlier version of the command
/// line did.
#[tokio::test]
async fn a_key_restricted_to_an_empty_customer_is_rejected() {
    let world = World::new().await;
    world.deployment().await;
    let new = NewKey { customer_id: Some(String::new()), ..limited(&[Scope::DeploymentsRead]) };
    let (key, _) = world.limited_key(new).await;
    for path in ["/v1/deployments", "/v1/steering", "/v1/snapshots"] {
        let rejected = world.call(&key, Method::GET, path, None).await;
        assert_eq!(rejected.status_and_code(), (401, "unauthorized".to_owned()), "{path}");
    }
}
