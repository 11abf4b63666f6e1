//! The queue: only one worker holds the lease on a work item, and a worker that lost its lease cannot write.

use herm_store::queue::{self, Kind, Lease};
use herm_store::{Error, Store, deployments};

use crate::engine::{World, on_both_engines};

on_both_engines!(
    an_item_has_one_owner_until_its_lease_ends,
    a_worker_that_lost_its_lease_cannot_write,
    a_renewed_lease_stays_valid,
    a_postponed_item_is_due_later,
    released_leases_are_claimed_at_once,
    the_longest_due_item_is_claimed_first,
    an_item_queued_during_a_deletion_does_not_block_claims,
);

const LEASE_MS: i64 = 30_000;

async fn claim(store: &Store, limit: i64) -> Vec<Lease> {
    store
        .transaction("claim", move |tx| Box::pin(async move { queue::claim(tx, "w", limit, LEASE_MS).await }))
        .await
        .unwrap()
}

async fn hold(store: &Store, lease: &Lease) -> Result<(), Error> {
    let lease = lease.clone();
    store.transaction("hold", move |tx| Box::pin(async move { queue::hold(tx, &lease).await })).await
}

async fn an_item_has_one_owner_until_its_lease_ends(world: World) {
    let deployment = world.deployment().await;
    let (run_id, _) = world.run(&deployment).await;
    let first = claim(&world.store, 10).await;
    assert_eq!(first.len(), 1);
    assert_eq!((first[0].subject_id.as_str(), first[0].fence), (run_id.to_string().as_str(), 1));
    world.clock.advance_ms(LEASE_MS - 1);
    assert_eq!(claim(&world.store, 10).await, []);
    world.clock.advance_ms(1);
    let second = claim(&world.store, 10).await;
    assert_eq!((second[0].fence, second[0].attempts), (2, 2));
}

async fn a_worker_that_lost_its_lease_cannot_write(world: World) {
    let deployment = world.deployment().await;
    world.run(&deployment).await;
    let lost = claim(&world.store, 1).await.remove(0);
    world.clock.advance_ms(LEASE_MS);
    let held = claim(&world.store, 1).await.remove(0);
    assert!(matches!(hold(&world.store, &lost).await, Err(Error::LeaseLost)));
    hold(&world.store, &held).await.unwrap();
    world
        .store
        .transaction("complete", move |tx| Box::pin(async move { queue::complete(tx, &held).await }))
        .await
        .unwrap();
    assert!(matches!(hold(&world.store, &lost).await, Err(Error::LeaseLost)), "the item was removed");
    let left = world.store.read("len", |tx| Box::pin(queue::len(tx))).await.unwrap();
    assert_eq!(left, 0);
}

async fn a_renewed_lease_stays_valid(world: World) {
    let deployment = world.deployment().await;
    world.run(&deployment).await;
    let lease = claim(&world.store, 1).await.remove(0);
    world.clock.advance_ms(LEASE_MS - 1);
    let renewed = lease.clone();
    world
        .store
        .transaction("renew", move |tx| Box::pin(async move { queue::renew(tx, &renewed, LEASE_MS).await }))
        .await
        .unwrap();
    world.clock.advance_ms(LEASE_MS - 1);
    assert_eq!(claim(&world.store, 1).await, []);
    hold(&world.store, &lease).await.unwrap();
}

async fn a_postponed_item_is_due_later(world: World) {
    let deployment = world.deployment().await;
    world.run(&deployment).await;
    let lease = claim(&world.store, 1).await.remove(0);
    world
        .store
        .transaction("postpone", move |tx| Box::pin(async move { queue::postpone(tx, &lease, 500).await }))
        .await
        .unwrap();
    assert_eq!(claim(&world.store, 1).await, []);
    world.clock.advance_ms(500);
    assert_eq!(claim(&world.store, 1).await.len(), 1);
}

async fn released_leases_are_claimed_at_once(world: World) {
    let deployment = world.deployment().await;
    world.run(&deployment).await;
    let lost = claim(&world.store, 1).await.remove(0);
    let released = world.store.transaction("release", |tx| Box::pin(queue::release_all(tx))).await.unwrap();
    assert_eq!(released, 1);
    assert_eq!(claim(&world.store, 1).await[0].fence, lost.fence + 1);
}

async fn the_longest_due_item_is_claimed_first(world: World) {
    let deployment = world.deployment().await;
    let mut expected = Vec::new();
    for _ in 0..3 {
        expected.push(world.run(&deployment).await.0.to_string());
        world.clock.advance_ms(1);
    }
    let mut claimed = claim(&world.store, 2).await;
    claimed.extend(claim(&world.store, 2).await);
    assert_eq!(claimed.into_iter().map(|lease| lease.subject_id).collect::<Vec<_>>(), expected);
}

/// Deleting a deployment first removes its work items and then closes its event log. On PostgreSQL, a message that is
/// accepted between these two steps adds a new work item for the deleted deployment. This test leaves the run's
/// original work item in the queue instead, which has the same effect.
async fn an_item_queued_during_a_deletion_does_not_block_claims(world: World) {
    let (deleted, other) = (world.deployment().await, world.deployment().await);
    world.run(&deleted).await;
    let (run_id, _) = world.run(&other).await;
    let (deleted_id, work_id) = (deleted.deployment_id, world.ids.next());
    world
        .store
        .transaction("delete", move |tx| {
            Box::pin(async move {
                assert!(deployments::delete(tx, &deleted).await?);
                queue::enqueue(tx, work_id, Kind::Teardown, deleted_id.to_string(), deleted_id).await
            })
        })
        .await
        .unwrap();
    let claimed = claim(&world.store, 10).await;
    let mut subjects: Vec<&str> = claimed.iter().map(|lease| lease.subject_id.as_str()).collect();
    subjects.sort_unstable();
    assert_eq!(subjects, [deleted_id.to_string(), run_id.to_string()]);
    let left = world.store.read("len", |tx| Box::pin(queue::len(tx))).await.unwrap();
    assert_eq!(left, 2, "an item that cannot run is removed");
}
