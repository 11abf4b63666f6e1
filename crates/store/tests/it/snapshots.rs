//! Snapshots from the deletion of their deployment to their expiry, and the teardown work items that write their
//! archives.

use std::collections::BTreeSet;

use herm_store::deployments::{self, Transition};
use herm_store::queue::{self, Kind};
use herm_store::{Error, snapshots};
use herm_types::deployment::{DeploymentError, DeploymentStatus};
use herm_types::paging::PageRequest;
use herm_types::snapshot::{RETENTION_MS, Snapshot, SnapshotContents, SnapshotError, SnapshotStatus};
use herm_types::{Clock as _, SnapshotId, WorkId};

use crate::engine::{World, on_both_engines};

on_both_engines!(
    a_snapshot_reads_back_as_inserted,
    a_failed_snapshot_may_become_ready_but_a_ready_one_cannot_fail,
    lists_are_limited_to_filter_and_account,
    expired_snapshots_are_removed_in_batches_and_waiting_items_resume,
    provisioning_ends_once,
);

const CONTENTS: SnapshotContents = SnapshotContents { size: 5, content_size: 7, entries: 2, left_out: 1 };

fn new(world: &World, customer_id: &str) -> Snapshot {
    let now = world.clock.now();
    Snapshot {
        snapshot_id: world.ids.next(),
        account_id: world.new_deployment("any").account_id,
        deployment_id: world.ids.next(),
        customer_id: customer_id.to_owned(),
        status: SnapshotStatus::Creating,
        contents: None,
        error: None,
        created_at: now,
        expires_at: now.plus_ms(RETENTION_MS),
    }
}

async fn insert(world: &World, snapshot: &Snapshot) {
    let snapshot = snapshot.clone();
    let inserted = world
        .store
        .transaction("insert", move |tx| Box::pin(async move { snapshots::insert(tx, &snapshot).await }));
    inserted.await.unwrap();
}

async fn find(world: &World, id: SnapshotId) -> Option<Snapshot> {
    world.store.read("find", move |tx| Box::pin(snapshots::find(tx, id))).await.unwrap()
}

async fn a_snapshot_reads_back_as_inserted(world: World) {
    let made = new(&world, "customer");
    insert(&world, &made).await;
    assert_eq!(find(&world, made.snapshot_id).await.unwrap(), made);
    let (id, of) = (made.snapshot_id, made.deployment_id);
    let finished = world
        .store
        .transaction("finish", move |tx| Box::pin(snapshots::finish(tx, id, CONTENTS)))
        .await
        .unwrap();
    assert!(finished);
    let ready = Snapshot { status: SnapshotStatus::Ready, contents: Some(CONTENTS), ..made };
    let found = world.store.read("find", move |tx| Box::pin(snapshots::find_of_deployment(tx, of)));
    assert_eq!(found.await.unwrap(), Some(ready.clone()));
    let gone = ready.clone();
    let deleted = world.store.transaction("delete", move |tx| {
        Box::pin(async move {
            let once = snapshots::delete(tx, &gone).await?;
            let twice = snapshots::delete(tx, &gone).await?;
            Ok::<_, Error>((once, twice, snapshots::finish(tx, id, CONTENTS).await?))
        })
    });
    assert_eq!(deleted.await.unwrap(), (true, false, false));
    assert_eq!(find(&world, id).await, None);
    let known =
        world.store.read("known", move |tx| Box::pin(async move { snapshots::existing(tx, &[id]).await }));
    assert_eq!(known.await.unwrap(), BTreeSet::new());
}

async fn a_failed_snapshot_may_become_ready_but_a_ready_one_cannot_fail(world: World) {
    let made = new(&world, "customer");
    insert(&world, &made).await;
    let id = made.snapshot_id;
    let error = SnapshotError { code: "no_space".to_owned(), message: "The disk is full.".to_owned() };
    let fail = async |error: SnapshotError| {
        let failed = world
            .store
            .transaction("fail", move |tx| Box::pin(async move { snapshots::fail(tx, id, &error).await }));
        failed.await.unwrap();
    };
    fail(error.clone()).await;
    let found = find(&world, id).await.unwrap();
    assert_eq!((found.status, found.error.as_ref()), (SnapshotStatus::Error, Some(&error)));
    let finish = world.store.transaction("finish", move |tx| Box::pin(snapshots::finish(tx, id, CONTENTS)));
    assert!(finish.await.unwrap());
    fail(error).await;
    let found = find(&world, id).await.unwrap();
    assert_eq!((found.status, found.error), (SnapshotStatus::Ready, None));
}

async fn lists_are_limited_to_filter_and_account(world: World) {
    let (ours, other) = (new(&world, "customer"), new(&world, "other"));
    let foreign = Snapshot { account_id: world.ids.next(), ..new(&world, "customer") };
    for snapshot in [&ours, &other, &foreign] {
        insert(&world, snapshot).await;
    }
    let account_id = ours.account_id;
    let list = async |filter: snapshots::Filter, page: PageRequest| {
        let listed = world.store.read("list", move |tx| {
            Box::pin(async move { snapshots::list(tx, account_id, &filter, &page).await })
        });
        listed.await.unwrap().into_iter().map(|row| row.snapshot_id).collect::<Vec<_>>()
    };
    let (all, any) = (snapshots::Filter::default(), PageRequest::default());
    assert_eq!(list(all.clone(), any.clone()).await, [other.snapshot_id, ours.snapshot_id]);
    let after = PageRequest { limit: 1, after: Some(other.snapshot_id.to_string()) };
    assert_eq!(list(all.clone(), after).await, [ours.snapshot_id]);
    let of_customer = snapshots::Filter { customer_id: Some("other".to_owned()), ..all.clone() };
    assert_eq!(list(of_customer, any.clone()).await, [other.snapshot_id]);
    let of_deployment = snapshots::Filter { deployment_id: Some(ours.deployment_id), ..all.clone() };
    assert_eq!(list(of_deployment, any.clone()).await, [ours.snapshot_id]);
    let ready = snapshots::Filter { status: Some(SnapshotStatus::Ready), ..all };
    assert_eq!(list(ready, any).await, []);
}

async fn expired_snapshots_are_removed_in_batches_and_waiting_items_resume(world: World) {
    let waiting = new(&world, "customer");
    let (work_id, of): (WorkId, _) = (world.ids.next(), waiting.deployment_id);
    let wait = world.store.transaction("wait", move |tx| {
        Box::pin(async move {
            queue::enqueue(tx, work_id, Kind::Teardown, of.to_string(), of).await?;
            let lease = queue::claim(tx, "test", 1, 1000).await?.remove(0);
            queue::postpone(tx, &lease, 2 * RETENTION_MS).await
        })
    });
    wait.await.unwrap();
    insert(&world, &waiting).await;
    insert(&world, &new(&world, "customer")).await;
    world.clock.advance_ms(1);
    let young = new(&world, "customer");
    insert(&world, &young).await;
    world.clock.advance_ms(RETENTION_MS - 1);
    let mut removed = Vec::new();
    for expected in [1, 1, 0] {
        let batch =
            world.store.transaction("sweep", |tx| Box::pin(snapshots::remove_expired(tx, 1))).await.unwrap();
        assert_eq!(batch.len(), expected);
        removed.extend(batch.into_iter().map(|snapshot| snapshot.snapshot_id));
    }
    assert!(removed.contains(&waiting.snapshot_id) && !removed.contains(&young.snapshot_id));
    let claimed =
        world.store.transaction("claim", |tx| Box::pin(queue::claim(tx, "test", 9, 1000))).await.unwrap();
    assert_eq!(claimed.iter().map(|lease| lease.work_id).collect::<Vec<_>>(), [work_id]);
}

async fn provisioning_ends_once(world: World) {
    let mut made = world.new_deployment("customer");
    made.status = DeploymentStatus::Provisioning;
    made.restore_snapshot = Some(world.ids.next());
    let (inserted, id) = (made.clone(), made.deployment_id);
    world
        .store
        .transaction("insert", move |tx| Box::pin(async move { deployments::insert(tx, &inserted).await }))
        .await
        .unwrap();
    let find = async || {
        world.store.read("find", move |tx| Box::pin(deployments::find(tx, id))).await.unwrap().unwrap()
    };
    assert_eq!(find().await, made);
    let change = async |to: Transition| {
        let changed = world.store.transaction("change", move |tx| {
            Box::pin(async move { deployments::transition(tx, id, to).await })
        });
        changed.await.unwrap()
    };
    let error = DeploymentError { code: "snapshot_refused".to_owned(), message: "It is damaged.".to_owned() };
    assert!(!change(Transition::Provision).await && !change(Transition::Recover).await);
    assert!(change(Transition::Fail(error.clone())).await);
    let failed = find().await;
    assert_eq!((failed.status, failed.error.clone()), (DeploymentStatus::Error, Some(error.clone())));
    assert_eq!((failed.restore_snapshot, failed.version), (made.restore_snapshot, made.version));
    assert!(
        !change(Transition::Ready).await && !change(Transition::Fail(error)).await,
        "it has ended already"
    );
    assert!(change(Transition::Provision).await);
    let again = find().await;
    assert_eq!((again.status, again.error), (DeploymentStatus::Provisioning, None));
    assert!(change(Transition::Ready).await);
    let ready = find().await;
    assert_eq!((ready.status, ready.error, ready.restore_snapshot), (DeploymentStatus::Ready, None, None));
}
