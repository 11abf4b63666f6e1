//! Idempotency records: only one claim at a time, and only the claim's holder can store a response.

use herm_store::idempotent_requests::{self as records, RECORD_LIFETIME_MS, Record, RequestKey};
use herm_store::{Error, Store};

use crate::engine::{World, on_both_engines};

on_both_engines!(
    one_of_many_concurrent_claims_succeeds,
    a_response_commits_with_its_effect_or_not_at_all,
    a_lost_claim_neither_completes_nor_releases,
    claims_of_a_dead_server_are_released_and_responses_stay,
    expired_records_are_removed_in_batches_oldest_first,
);

const LEASE_MS: i64 = 60_000;

fn key(world: &World, idempotency_key: &str) -> RequestKey {
    RequestKey {
        key_id: world.ids.next(),
        method: "POST".to_owned(),
        path: "/v1/deployments".to_owned(),
        idempotency_key: idempotency_key.to_owned(),
    }
}

async fn claim(store: &Store, key: &RequestKey, claim_id: &str) -> bool {
    let (key, claim_id) = (key.clone(), claim_id.to_owned());
    store
        .transaction("claim", move |tx| {
            Box::pin(async move { records::insert(tx, &key, "hash", &claim_id, LEASE_MS).await })
        })
        .await
        .unwrap()
}

async fn complete(store: &Store, key: &RequestKey, claim_id: &str, status: u16) -> bool {
    let (key, claim_id) = (key.clone(), claim_id.to_owned());
    store
        .transaction("complete", move |tx| {
            Box::pin(async move { records::complete(tx, &key, &claim_id, status, "answer").await })
        })
        .await
        .unwrap()
}

async fn release(store: &Store, key: &RequestKey, claim_id: &str) {
    let (key, claim_id) = (key.clone(), claim_id.to_owned());
    store
        .transaction("release", move |tx| {
            Box::pin(async move { records::release(tx, &key, &claim_id).await })
        })
        .await
        .unwrap();
}

async fn find(store: &Store, key: &RequestKey) -> Option<Record> {
    let key = key.clone();
    store
        .transaction("find", move |tx| Box::pin(async move { records::find_and_lock(tx, &key).await }))
        .await
        .unwrap()
}

async fn one_of_many_concurrent_claims_succeeds(world: World) {
    let key = key(&world, "many");
    let claims = (0..16).map(|number| {
        let (store, key) = (world.store.clone(), key.clone());
        tokio::spawn(async move { claim(&store, &key, &number.to_string()).await })
    });
    let mut won = 0;
    for claim in claims.collect::<Vec<_>>() {
        won += usize::from(claim.await.unwrap());
    }
    assert_eq!(won, 1);
    let record = find(&world.store, &key).await.unwrap();
    assert_eq!((record.body_hash.as_str(), record.response), ("hash", None));
    assert_eq!(record.lease_expires_at, record.created_at.plus_ms(LEASE_MS));
}

async fn a_response_commits_with_its_effect_or_not_at_all(world: World) {
    let key = key(&world, "effect");
    assert!(claim(&world.store, &key, "one").await);
    let of_failed = key.clone();
    let failed: Result<(), Error> = world
        .store
        .transaction("fails", move |tx| {
            Box::pin(async move {
                assert!(records::complete(tx, &of_failed, "one", 201, "answer").await?);
                Err(Error::LeaseLost)
            })
        })
        .await;
    assert!(failed.is_err());
    assert_eq!(find(&world.store, &key).await.unwrap().response, None);
    assert!(complete(&world.store, &key, "one", 201).await);
    assert_eq!(find(&world.store, &key).await.unwrap().response, Some((201, "answer".to_owned())));
    assert!(!complete(&world.store, &key, "one", 400).await, "a response is stored once");
}

async fn a_lost_claim_neither_completes_nor_releases(world: World) {
    let key = key(&world, "lost");
    assert!(claim(&world.store, &key, "slow").await);
    let taken = key.clone();
    world
        .store
        .transaction("take_over", move |tx| {
            Box::pin(async move { records::take_over(tx, &taken, "hash", "fast", LEASE_MS).await })
        })
        .await
        .unwrap();
    assert!(!complete(&world.store, &key, "slow", 201).await);
    release(&world.store, &key, "slow").await;
    assert!(complete(&world.store, &key, "fast", 202).await);
    release(&world.store, &key, "fast").await;
    assert_eq!(find(&world.store, &key).await.unwrap().response.unwrap().0, 202);
    // After the first claim was released and a second one made, the holder of the first claim cannot complete the
    // record.
    let other = self::key(&world, "free");
    assert!(claim(&world.store, &other, "first").await);
    release(&world.store, &other, "first").await;
    assert!(claim(&world.store, &other, "second").await);
    assert!(!complete(&world.store, &other, "first", 201).await);
}

async fn claims_of_a_dead_server_are_released_and_responses_stay(world: World) {
    let (open, done) = (key(&world, "open"), key(&world, "done"));
    assert!(claim(&world.store, &open, "a").await && claim(&world.store, &done, "b").await);
    assert!(complete(&world.store, &done, "b", 201).await);
    world.store.transaction("start", |tx| Box::pin(records::release_all(tx))).await.unwrap();
    assert!(claim(&world.store, &open, "c").await);
    assert!(!claim(&world.store, &done, "d").await);
}

async fn expired_records_are_removed_in_batches_oldest_first(world: World) {
    let mut keys = Vec::new();
    for number in 0..7 {
        let key = key(&world, &number.to_string());
        assert!(claim(&world.store, &key, "c").await);
        keys.push(key);
        world.clock.advance_ms(1000);
    }
    // Advances the clock to the exact millisecond at which the fourth record expires. The first three expired earlier.
    world.clock.advance_ms(RECORD_LIFETIME_MS - 4000);
    let remove = async || {
        let removed = world.store.transaction("remove", |tx| Box::pin(records::remove_outdated(tx, 3)));
        removed.await.unwrap()
    };
    assert_eq!(remove().await, 3);
    assert!(find(&world.store, &keys[2]).await.is_none() && find(&world.store, &keys[3]).await.is_some());
    assert_eq!(remove().await, 1);
    assert_eq!(remove().await, 0);
    assert!(find(&world.store, &keys[3]).await.is_none() && find(&world.store, &keys[4]).await.is_some());
}
