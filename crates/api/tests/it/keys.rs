//! `/v1/keys`: made within limits, listed, revoked at once.

use std::sync::Arc;

use herm_app::keys::NewKey;
use herm_store::{DatabaseClock, Location, Store};
use herm_types::KeyId;
use herm_types::key::Scope;
use http::Method;
use serde_json::{Value, json};

use crate::events::Stream;
use crate::world::{Answer, World, minimal};

async fn create(world: &World, key: &str, body: &Value) -> Answer {
    world.call(key, Method::POST, "/v1/keys", Some(body)).await
}

async fn revoke(world: &World, key_id: &Value) -> Answer {
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
async fn a_key_is_shown_once_and_opens_what_it_is_for() {
    let world = World::new().await;
    let made = world.deployment().await;
    let body = json!({"name": "reports", "scopes": ["deployments:read", "deployments:read"],
        "customer_id": "acme", "expires_at": "2027-01-15T09:00:00Z"});
    let answer = create(&world, &world.admin, &body).await;
    assert_eq!(answer.status, 201, "{}", answer.json());
    let key = answer.json();
    let text = key["key"].as_str().unwrap();
    assert!(text.starts_with("herm_sk_"), "{text}");
    let expected = json!({"key_id": key["key_id"], "account_id": key["account_id"], "name": "reports",
        "scopes": ["deployments:read"], "customer_id": "acme", "created_at": "2027-01-15T08:00:00.000000Z",
        "expires_at": "2027-01-15T09:00:00.000000Z", "key": text});
    assert_eq!(key, expected);
    assert_eq!(world.call(text, Method::GET, &World::path(&made, ""), None).await.status, 200);
    assert_eq!(world.call(text, Method::POST, "/v1/deployments", Some(&minimal())).await.status, 403);

    let listed = world.call(&world.admin, Method::GET, "/v1/keys", None).await;
    assert_eq!(listed.json()["data"][0]["key_id"], key["key_id"]);
    assert!(!listed.json().to_string().contains(text));
    world.clock.advance_ms(3_600_000);
    assert_eq!(world.call(text, Method::GET, &World::path(&made, ""), None).await.status, 401);
}

#[tokio::test]
async fn all_faults_of_a_key_are_told_at_once() {
    let world = World::new().await;
    let body = json!({"name": "", "scopes": ["deployments:read", "messages:send", 7], "deployment_id": "dep_1",
        "customer_id": "", "expires_at": "2027-01-15T08:00:00Z", "expires": "30d"});
    let answer = create(&world, &world.admin, &body).await;
    assert_eq!(answer.refusal(), (400, "validation_error".to_owned()));
    let expected =
        ["name", "scopes[1]", "scopes[2]", "deployment_id", "customer_id", "expires_at", "expires"];
    assert_eq!(answer.faults(), expected);
    assert_eq!(create(&world, &world.admin, &json!({})).await.faults(), ["name", "scopes"]);
    let none = json!({"name": "n", "scopes": [], "expires_at": "tomorrow"});
    assert_eq!(create(&world, &world.admin, &none).await.faults(), ["scopes", "expires_at"]);
}

#[tokio::test]
async fn a_key_is_not_limited_to_what_is_not_there_or_contradicts_itself() {
    let world = World::new().await;
    let made = world.deployment().await;
    let theirs = world.call(&world.stranger, Method::POST, "/v1/deployments", Some(&minimal())).await.json();
    let limited_to = |deployment: &Value| json!({"name": "n", "scopes": ["deployments:read"], "deployment_id": deployment["deployment_id"]});
    assert_eq!(create(&world, &world.admin, &limited_to(&theirs)).await.refusal().0, 404);
    let mut both = limited_to(&made);
    assert_eq!(create(&world, &world.admin, &both).await.status, 201);
    both["customer_id"] = "other".into();
    assert_eq!(create(&world, &world.admin, &both).await.faults(), ["customer_id"]);
}

#[tokio::test]
async fn a_limited_admin_makes_no_key_that_reaches_further() {
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
        let answer = create(&world, key, &with(limits.clone())).await;
        assert_eq!(answer.status, status, "{limits}: {}", answer.json());
    }
    // Nor does it see or revoke another's.
    let wide = create(&world, &world.admin, &with(json!({}))).await.json();
    for key in [&of_deployment, &of_customer] {
        let listed = world.call(key, Method::GET, "/v1/keys?limit=100", None).await.json();
        let seen = listed["data"].as_array().unwrap();
        assert!(seen.len() >= 2 && seen.iter().all(|seen| seen["key_id"] != wide["key_id"]), "{listed}");
        let path = format!("/v1/keys/{}", wide["key_id"].as_str().unwrap());
        assert_eq!(world.call(key, Method::DELETE, &path, None).await.status, 404);
    }
}

#[tokio::test]
async fn keys_are_listed_newest_first_page_by_page() {
    let world = World::new().await;
    let body = json!({"name": "n", "scopes": ["usage:read"]});
    let mut made = Vec::new();
    for _ in 0..4 {
        made.push(create(&world, &world.admin, &body).await.json()["key_id"].clone());
    }
    made.reverse();
    let (mut listed, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/keys?limit=2{cursor}");
        let page = world.call(&world.admin, Method::GET, &path, None).await.json();
        listed.extend(page["data"].as_array().unwrap().iter().map(|key| key["key_id"].clone()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
        create(&world, &world.admin, &body).await;
    }
    // Those the test began with are there too, the stranger's is not.
    assert_eq!((&listed[..4], listed.len()), (&made[..], 7));
    let refused = world.call(&world.admin, Method::GET, "/v1/keys?cursor=x&limit=0&q=1", None).await;
    assert_eq!(refused.faults(), ["limit", "cursor", "q"]);
}

#[tokio::test]
async fn a_revoked_keys_requests_and_streams_end_at_once() {
    let world = World::new().await;
    let made = world.deployment().await;
    let key =
        create(&world, &world.admin, &json!({"name": "n", "scopes": ["deployments:read"]})).await.json();
    let text = key["key"].as_str().unwrap();
    let mut stream = Stream::open_with(&world, text, &World::path(&made, "/events?after=evt_0"), None).await;
    let mut others = Stream::open_with(&world, &world.reader, &World::path(&made, "/events"), None).await;
    assert_eq!(stream.next().await.unwrap().1, "evt_1");
    let answer = revoke(&world, &key["key_id"]).await;
    assert_eq!(answer.json(), json!({"key_id": key["key_id"], "status": "revoked"}));
    world.post(&World::path(&made, "/messages"), &json!({"content": "unseen"})).await;
    assert_eq!(stream.next().await, None, "not even what is at hand");
    assert_eq!(others.next().await.unwrap().1, "evt_2", "another key's stream goes on");
    assert_eq!(world.call(text, Method::GET, &World::path(&made, ""), None).await.status, 401);
    assert_eq!(revoke(&world, &key["key_id"]).await.status, 200, "it stays revoked");
    let listed = world.call(&world.admin, Method::GET, "/v1/keys", None).await.json();
    assert_eq!(listed["data"][0]["revoked_at"], "2027-01-15T08:00:00.000000Z");
}

/// Time jumps ahead whenever nothing else is left to do.
#[tokio::test(start_paused = true)]
async fn a_stream_ends_where_another_process_revoked_its_key() {
    let world = World::new().await;
    let made = world.deployment().await;
    let (key, info) = world.limited_key(limited(&[Scope::DeploymentsRead])).await;
    let mut stream = Stream::open_with(&world, &key, &World::path(&made, "/events"), None).await;
    let beside = Store::open(herm_store::Options {
        location: Location::Sqlite(world.workspaces_dir.parent().unwrap().to_owned()),
        clock: Arc::clone(&world.clock) as _,
        database_clock: DatabaseClock::Given,
        migrate: false,
        exclusive: false,
    })
    .await
    .unwrap();
    assert!(herm_app::keys::revoke(&beside, info.key_id).await.unwrap());
    assert_eq!(stream.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_life_of_its_key() {
    let world = World::new().await;
    let made = world.deployment().await;
    let end = herm_types::Clock::now(&*world.clock).plus_ms(60_000);
    let new = NewKey { expires_at: Some(end), ..limited(&[Scope::DeploymentsRead]) };
    let (key, _) = world.limited_key(new).await;
    // From the head on: a read of the log takes real time, which a time that jumps would not wait for.
    let mut stream = Stream::open_with(&world, &key, &World::path(&made, "/events"), None).await;
    world.clock.advance_ms(60_000);
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn what_names_no_key_is_not_found() {
    let world = World::new().await;
    let unknown: KeyId = world.ids.next();
    for id in [unknown.to_string(), "key_1".to_owned(), "x".to_owned()] {
        assert_eq!(revoke(&world, &json!(id)).await.refusal(), (404, "not_found".to_owned()));
    }
}
