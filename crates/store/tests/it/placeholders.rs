//! Placeholders, which sandboxes use in place of the values of secrets: each is created once per deployment and secret,
//! and removed when the deployment no longer uses the secret.

use herm_store::{Error, deployments, master_key, placeholders, secrets};
use herm_types::deployment::Deployment;
use herm_types::secret::{Inject, Secret};
use herm_types::{AccountId, SecretId};

use crate::engine::{World, on_both_engines};

on_both_engines!(
    each_deployment_has_its_own_placeholder_created_once,
    unbinding_a_secret_removes_its_placeholder,
    a_value_is_found_only_by_deployments_that_use_it,
    reads_return_the_current_secret,
    the_master_key_is_checked_against_the_first_text,
);

fn id(text: &str) -> SecretId {
    text.parse().unwrap()
}

async fn add_secret(world: &World, account_id: AccountId, secret_id: &str) {
    let secret = Secret {
        secret_id: id(secret_id),
        name: "n".to_owned(),
        allowed_hosts: vec!["api.acme.example".parse().unwrap()],
        inject: vec![Inject::Header],
        created_at: herm_types::Timestamp::from_micros(1),
        updated_at: herm_types::Timestamp::from_micros(1),
    };
    world
        .store
        .transaction("insert", move |tx| {
            Box::pin(async move { secrets::insert(tx, account_id, &secret, "sealed").await })
        })
        .await
        .unwrap();
}

async fn bind(world: &World, deployment: &Deployment, ids: &[&str]) {
    let (account_id, deployment_id) = (deployment.account_id, deployment.deployment_id);
    let ids: Vec<SecretId> = ids.iter().map(|text| id(text)).collect();
    let missing = world
        .store
        .transaction("use", move |tx| {
            Box::pin(async move { secrets::set_uses(tx, account_id, deployment_id, &ids).await })
        })
        .await
        .unwrap();
    assert_eq!(missing, None);
}

async fn make(world: &World, deployment: &Deployment, secret: &str, text: &'static str) -> Option<String> {
    let (deployment_id, secret_id) = (deployment.deployment_id, id(secret));
    world
        .store
        .transaction("make", move |tx| {
            Box::pin(async move { placeholders::insert(tx, deployment_id, &secret_id, text).await })
        })
        .await
        .unwrap()
}

async fn bound(world: &World, deployment: &Deployment) -> Vec<(String, Option<String>)> {
    let deployment_id = deployment.deployment_id;
    let bound = world
        .store
        .read("bound", move |tx| Box::pin(placeholders::bound_secrets(tx, deployment_id)))
        .await
        .unwrap();
    bound.into_iter().map(|secret| (secret.secret_id.to_string(), secret.placeholder)).collect()
}

async fn each_deployment_has_its_own_placeholder_created_once(world: World) {
    let (one, other) = (world.deployment().await, world.deployment().await);
    add_secret(&world, one.account_id, "sec_a").await;
    bind(&world, &one, &["sec_a"]).await;
    bind(&world, &other, &["sec_a"]).await;
    assert_eq!(bound(&world, &one).await, [("sec_a".to_owned(), None)]);
    let (first, second) = tokio::join!(make(&world, &one, "sec_a", "p1"), make(&world, &one, "sec_a", "p2"));
    assert_eq!(first, second, "both return the stored one");
    assert_eq!(make(&world, &one, "sec_a", "p3").await, first);
    assert_eq!(bound(&world, &one).await, [("sec_a".to_owned(), first)]);
    assert_eq!(make(&world, &other, "sec_a", "p4").await.as_deref(), Some("p4"));
    assert_eq!(make(&world, &other, "sec_b", "p5").await, None, "it does not use that secret");
}

async fn unbinding_a_secret_removes_its_placeholder(world: World) {
    let deployment = world.deployment().await;
    for secret in ["sec_a", "sec_b"] {
        add_secret(&world, deployment.account_id, secret).await;
    }
    bind(&world, &deployment, &["sec_a", "sec_b"]).await;
    make(&world, &deployment, "sec_a", "p1").await;
    make(&world, &deployment, "sec_b", "p2").await;
    bind(&world, &deployment, &["sec_b"]).await;
    assert_eq!(bound(&world, &deployment).await, [("sec_b".to_owned(), Some("p2".to_owned()))]);
    bind(&world, &deployment, &["sec_a", "sec_b"]).await;
    let again = [("sec_a".to_owned(), None), ("sec_b".to_owned(), Some("p2".to_owned()))];
    assert_eq!(bound(&world, &deployment).await, again, "a secret bound again gets a new placeholder");
    let gone = deployment.clone();
    world
        .store
        .transaction("delete", move |tx| Box::pin(async move { deployments::delete(tx, &gone).await }))
        .await
        .unwrap();
    assert_eq!(bound(&world, &deployment).await, []);
    assert_eq!(make(&world, &deployment, "sec_b", "p3").await, None);
}

async fn a_value_is_found_only_by_deployments_that_use_it(world: World) {
    let (one, other) = (world.deployment().await, world.deployment().await);
    let elsewhere = world.ids.next();
    add_secret(&world, one.account_id, "sec_a").await;
    add_secret(&world, elsewhere, "sec_a").await;
    bind(&world, &one, &["sec_a"]).await;
    let find = async |deployment: &Deployment| {
        let deployment_id = deployment.deployment_id;
        let found = world.store.read("find", move |tx| {
            Box::pin(async move { placeholders::find_sealed(tx, deployment_id, &id("sec_a")).await })
        });
        found.await.unwrap()
    };
    assert_eq!(find(&one).await, Some((one.account_id, "sealed".to_owned())));
    assert_eq!(find(&other).await, None);
    bind(&world, &one, &[]).await;
    assert_eq!(find(&one).await, None);
}

async fn reads_return_the_current_secret(world: World) {
    let deployment = world.deployment().await;
    let (account_id, deployment_id) = (deployment.account_id, deployment.deployment_id);
    add_secret(&world, account_id, "sec_a").await;
    bind(&world, &deployment, &["sec_a"]).await;
    let found = world
        .store
        .transaction("change", move |tx| {
            Box::pin(async move {
                let mut secret = secrets::find(tx, account_id, &id("sec_a")).await?.unwrap();
                secret.allowed_hosts = Vec::new();
                secret.inject = vec![Inject::Query];
                secrets::update(tx, account_id, &secret, Some("rotated".to_owned())).await?;
                let bound = placeholders::bound_secrets(tx, deployment_id).await?;
                Ok::<_, Error>((bound, placeholders::find_sealed(tx, deployment_id, &id("sec_a")).await?))
            })
        })
        .await
        .unwrap();
    assert_eq!((found.0[0].allowed_hosts.len(), found.0[0].inject.clone()), (0, vec![Inject::Query]));
    assert_eq!(found.1, Some((account_id, "rotated".to_owned())));
}

async fn the_master_key_is_checked_against_the_first_text(world: World) {
    let find = || world.store.read("find", |tx| Box::pin(master_key::find_check(tx)));
    let write = |text: &'static str| {
        world.store.transaction("write", move |tx| Box::pin(master_key::write_check(tx, text)))
    };
    assert_eq!(find().await.unwrap(), None);
    let (one, other) = tokio::join!(write("one"), write("other"));
    assert_eq!(one.unwrap(), other.unwrap());
    let kept = find().await.unwrap();
    write("third").await.unwrap();
    assert_eq!(find().await.unwrap(), kept);
}
