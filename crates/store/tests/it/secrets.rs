//! Secrets: ids are unique within an account, pages are consistent, and a secret in use cannot be deleted.

use herm_store::{Error, deployments, secrets};
use herm_types::paging::PageRequest;
use herm_types::secret::{Inject, Secret};
use herm_types::{AccountId, DeploymentId, SecretId, Timestamp};

use crate::engine::{World, on_both_engines};

on_both_engines!(
    a_secret_id_is_unique_within_its_account,
    secrets_are_listed_by_age_not_by_id,
    uses_are_replaced_and_deleted_with_the_deployment,
    a_missing_secret_cannot_be_used,
    concurrent_deletion_and_use_of_a_secret_never_both_succeed,
);

fn secret(id: &str, created_ms: i64) -> Secret {
    let created_at = Timestamp::from_micros(1_800_000_000_000_000).plus_ms(created_ms);
    Secret {
        secret_id: id.parse().unwrap(),
        name: "n".to_owned(),
        allowed_hosts: vec!["*.acme.example:443".parse().unwrap()],
        inject: vec![Inject::Query, Inject::Header],
        created_at,
        updated_at: created_at,
    }
}

async fn insert(world: &World, account_id: AccountId, secret: &Secret) -> bool {
    let secret = secret.clone();
    world
        .store
        .transaction("insert", move |tx| {
            Box::pin(async move { secrets::insert(tx, account_id, &secret, "sealed").await })
        })
        .await
        .unwrap()
}

async fn set_uses(
    world: &World,
    account_id: AccountId,
    deployment_id: DeploymentId,
    ids: &[&str],
) -> Option<SecretId> {
    let ids: Vec<SecretId> = ids.iter().map(|id| id.parse().unwrap()).collect();
    world
        .store
        .transaction("use", move |tx| {
            Box::pin(async move { secrets::set_uses(tx, account_id, deployment_id, &ids).await })
        })
        .await
        .unwrap()
}

async fn users(world: &World, account_id: AccountId, id: &str) -> Vec<DeploymentId> {
    let id: SecretId = id.parse().unwrap();
    world
        .store
        .read("users", move |tx| Box::pin(async move { secrets::users(tx, account_id, &id, 10).await }))
        .await
        .unwrap()
}

async fn a_secret_id_is_unique_within_its_account(world: World) {
    let (ours, theirs) = (world.ids.next(), world.ids.next());
    let mut made = secret("sec_a", 0);
    assert!(insert(&world, ours, &made).await);
    assert!(!insert(&world, ours, &made).await);
    assert!(insert(&world, theirs, &made).await);
    made.name = "renamed".to_owned();
    let changed = made.clone();
    let (kept, rotated) = world
        .store
        .transaction("update", move |tx| {
            Box::pin(async move {
                secrets::update(tx, ours, &changed, None).await?;
                let kept = secrets::find_sealed(tx, ours, &changed.secret_id).await?;
                secrets::update(tx, ours, &changed, Some("rotated".to_owned())).await?;
                Ok::<_, Error>((kept, secrets::find_sealed(tx, ours, &changed.secret_id).await?))
            })
        })
        .await
        .unwrap();
    assert_eq!(kept, Some((made.clone(), "sealed".to_owned())));
    assert_eq!(rotated, Some((made.clone(), "rotated".to_owned())));
    let other = world
        .store
        .read("find", move |tx| Box::pin(async move { secrets::find(tx, theirs, &made.secret_id).await }))
        .await
        .unwrap();
    assert_eq!(other, Some(secret("sec_a", 0)), "the other account's is untouched");
}

async fn secrets_are_listed_by_age_not_by_id(world: World) {
    let account_id = world.ids.next();
    for (id, age) in [("sec_z", 1), ("sec_a", 2), ("sec_m", 2), ("sec_b", 3), ("sec_y", 0)] {
        insert(&world, account_id, &secret(id, age)).await;
    }
    let (mut read, mut after) = (Vec::new(), None);
    for newer in 10.. {
        let page = PageRequest { limit: 2, after };
        let rows = world
            .store
            .read("page", move |tx| Box::pin(async move { secrets::page(tx, account_id, &page).await }))
            .await
            .unwrap();
        insert(&world, account_id, &secret(&format!("sec_{newer}"), newer)).await;
        after = rows.get(1).map(|row| secrets::Cursor::of(row).to_string());
        read.extend(rows.iter().take(2).map(|row| row.secret_id.to_string()));
        if rows.len() <= 2 {
            break;
        }
    }
    assert_eq!(read, ["sec_b", "sec_m", "sec_a", "sec_z", "sec_y"]);
}

async fn uses_are_replaced_and_deleted_with_the_deployment(world: World) {
    let deployment = world.deployment().await;
    let (account_id, deployment_id) = (deployment.account_id, deployment.deployment_id);
    for id in ["sec_a", "sec_b", "sec_c"] {
        insert(&world, account_id, &secret(id, 0)).await;
    }
    assert_eq!(set_uses(&world, account_id, deployment_id, &["sec_b", "sec_a", "sec_b"]).await, None);
    assert_eq!(users(&world, account_id, "sec_b").await, [deployment_id]);
    assert_eq!(set_uses(&world, account_id, deployment_id, &["sec_a", "sec_c"]).await, None);
    assert_eq!(users(&world, account_id, "sec_b").await, []);
    assert_eq!(users(&world, account_id, "sec_c").await, [deployment_id]);
    let deleted = world
        .store
        .transaction("delete", move |tx| Box::pin(async move { deployments::delete(tx, &deployment).await }))
        .await
        .unwrap();
    assert!(deleted);
    assert_eq!(users(&world, account_id, "sec_c").await, []);
}

async fn a_missing_secret_cannot_be_used(world: World) {
    let (ours, theirs, deployment_id) = (world.ids.next(), world.ids.next(), world.ids.next());
    insert(&world, ours, &secret("sec_a", 0)).await;
    insert(&world, theirs, &secret("sec_b", 0)).await;
    let missing = set_uses(&world, ours, deployment_id, &["sec_a", "sec_b"]).await;
    assert_eq!(missing, Some("sec_b".parse().unwrap()));
}

async fn concurrent_deletion_and_use_of_a_secret_never_both_succeed(world: World) {
    let account_id = world.ids.next();
    for round in 0..20 {
        let (id, deployment_id) = (format!("sec_{round}"), world.ids.next());
        insert(&world, account_id, &secret(&id, round)).await;
        let doomed: SecretId = id.parse().unwrap();
        let delete = world.store.transaction("delete", move |tx| {
            Box::pin(async move {
                secrets::find_and_lock(tx, account_id, &doomed).await?;
                let is_free = secrets::users(tx, account_id, &doomed, 1).await?.is_empty();
                if is_free {
                    secrets::delete(tx, account_id, &doomed).await?;
                }
                Ok::<_, Error>(is_free)
            })
        });
        let ids = [id.as_str()];
        let (deleted, missing) = tokio::join!(delete, set_uses(&world, account_id, deployment_id, &ids));
        assert_eq!(deleted.unwrap(), missing.is_some(), "round {round}");
        assert_eq!(users(&world, account_id, &id).await.is_empty(), missing.is_some());
    }
}
