//! Keys and browser tokens: revocation, expiry and restrictions.

use herm_store::{Error, keys};
use herm_types::key::{KeyInfo, Scope};
use herm_types::paging::PageRequest;
use herm_types::{AccountId, DeploymentId, KeyId, Timestamp};

use crate::engine::{World, on_both_engines};

on_both_engines!(
    a_key_is_found_by_its_hash_alone_and_reads_back,
    revoking_a_key_revokes_its_tokens_but_not_the_reverse,
    tokens_are_not_listed_and_expired_ones_are_removed,
    a_restricted_caller_sees_only_keys_within_its_reach,
);

fn key(world: &World, account_id: AccountId) -> KeyInfo {
    KeyInfo {
        key_id: world.ids.next(),
        account_id,
        name: "n".to_owned(),
        scopes: vec![Scope::DeploymentsRead, Scope::FilesWrite],
        deployment_id: None,
        customer_id: None,
        parent_key_id: None,
        created_at: Timestamp::from_micros(1_800_000_000_000_000),
        expires_at: None,
        revoked_at: None,
    }
}

/// Inserts a key, with its id in place of the hash. Checks that a second insertion with the same hash fails.
async fn insert(world: &World, key: &KeyInfo) {
    let key = key.clone();
    let inserted = world
        .store
        .transaction("insert", move |tx| {
            Box::pin(async move {
                let hash = key.key_id.to_string();
                let first = keys::insert(tx, &key, &hash).await?;
                Ok::<_, Error>((first, keys::insert(tx, &key, &hash).await?))
            })
        })
        .await
        .unwrap();
    assert_eq!(inserted, (true, false));
}

async fn find(world: &World, key_id: KeyId) -> Option<KeyInfo> {
    let hash = key_id.to_string();
    let by_hash = world
        .store
        .read("find", move |tx| Box::pin(async move { keys::find_by_hash(tx, &hash).await }))
        .await
        .unwrap();
    let by_id = world.store.read("find", move |tx| Box::pin(keys::find(tx, key_id))).await.unwrap();
    assert_eq!(by_hash, by_id);
    by_id
}

async fn a_key_is_found_by_its_hash_alone_and_reads_back(world: World) {
    let mut made = key(&world, world.ids.next());
    made.deployment_id = Some(world.ids.next());
    made.customer_id = Some("acme".to_owned());
    made.expires_at = Some(Timestamp::from_micros(1_900_000_000_000_000));
    insert(&world, &made).await;
    assert_eq!(find(&world, made.key_id).await, Some(made));
    assert_eq!(find(&world, world.ids.next()).await, None);
}

async fn revoking_a_key_revokes_its_tokens_but_not_the_reverse(world: World) {
    let parent = key(&world, world.ids.next());
    let mut tokens = [key(&world, parent.account_id), key(&world, parent.account_id)];
    insert(&world, &parent).await;
    for token in &mut tokens {
        token.parent_key_id = Some(parent.key_id);
        insert(&world, token).await;
    }
    let revoke = async |key_id: KeyId| {
        world.store.transaction("revoke", move |tx| Box::pin(keys::revoke(tx, key_id))).await.unwrap()
    };
    let is_revoked = async |key: &KeyInfo| find(&world, key.key_id).await.unwrap().revoked_at.is_some();
    assert!(revoke(tokens[0].key_id).await);
    let revoked = [is_revoked(&parent).await, is_revoked(&tokens[0]).await, is_revoked(&tokens[1]).await];
    assert_eq!(revoked, [false, true, false]);
    assert!(revoke(parent.key_id).await);
    assert!(is_revoked(&parent).await && is_revoked(&tokens[1]).await);
    let first = find(&world, parent.key_id).await;
    world.clock.advance_ms(1000);
    assert!(revoke(parent.key_id).await);
    assert_eq!(find(&world, parent.key_id).await, first, "the revocation keeps its time");
    assert!(!revoke(world.ids.next()).await);
}

async fn tokens_are_not_listed_and_expired_ones_are_removed(world: World) {
    let parent = key(&world, world.ids.next());
    insert(&world, &parent).await;
    let mut tokens = Vec::new();
    for number in 0..20 {
        let mut token = key(&world, parent.account_id);
        token.parent_key_id = Some(parent.key_id);
        token.expires_at = Some(parent.created_at.plus_ms(if number == 3 { 60_000 } else { 1000 }));
        insert(&world, &token).await;
        tokens.push(token.key_id);
    }
    let account_id = parent.account_id;
    let (listed, counted) = world
        .store
        .read("list", move |tx| {
            Box::pin(
                async move { Ok::<_, Error>((keys::list(tx).await?, keys::count(tx, account_id).await?)) },
            )
        })
        .await
        .unwrap();
    assert_eq!((listed, counted), (vec![parent.clone()], 1));
    world.clock.advance_ms(1000);
    for _ in 0..3 {
        world.store.transaction("mint", |tx| Box::pin(keys::remove_expired_tokens(tx))).await.unwrap();
    }
    let mut left = Vec::new();
    for key_id in tokens.iter().copied().chain([parent.key_id]) {
        left.extend(find(&world, key_id).await.map(|key| key.key_id));
    }
    assert_eq!(left, [tokens[3], parent.key_id], "a live token and the key stay");
}

async fn a_restricted_caller_sees_only_keys_within_its_reach(world: World) {
    let deployment = world.deployment().await;
    let account_id = deployment.account_id;
    let mut limits: Vec<(Option<DeploymentId>, Option<&str>)> =
        vec![(None, None), (Some(deployment.deployment_id), None), (None, Some("customer"))];
    limits.extend([(None, Some("other")), (Some(world.ids.next()), None)]);
    let mut made = Vec::new();
    for (deployment_id, customer_id) in limits {
        let mut limited = key(&world, account_id);
        limited.deployment_id = deployment_id;
        limited.customer_id = customer_id.map(str::to_owned);
        insert(&world, &limited).await;
        made.push(limited.key_id);
    }
    let seen = async |account_id, deployment_id, customer_id: Option<&str>| {
        let customer_id = customer_id.map(str::to_owned);
        let reach = keys::Reach { account_id, deployment_id, customer_id };
        let all = made.clone();
        let (listed, found) = world
            .store
            .read("list", move |tx| {
                Box::pin(async move {
                    let mut found = Vec::new();
                    for key_id in all {
                        found.extend(keys::find_within(tx, &reach, key_id).await?.map(|key| key.key_id));
                    }
                    Ok::<_, Error>((keys::page(tx, &reach, &PageRequest::default()).await?, found))
                })
            })
            .await
            .unwrap();
        let listed: Vec<KeyId> = listed.iter().rev().map(|key| key.key_id).collect();
        assert_eq!(listed, found);
        found.iter().map(|id| made.iter().position(|key_id| key_id == id).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(seen(account_id, None, None).await, [0, 1, 2, 3, 4]);
    assert_eq!(seen(account_id, Some(deployment.deployment_id), None).await, [1]);
    assert_eq!(seen(account_id, None, Some("customer")).await, [1, 2]);
    assert_eq!(seen(world.ids.next(), None, None).await, [0; 0]);
}
