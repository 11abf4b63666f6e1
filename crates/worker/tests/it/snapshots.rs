//! Tests that expired snapshots are removed with their files, and that files that belong to no snapshot are removed.

use std::sync::Arc;

use herm_sandbox::snapshots::Snapshots;
use herm_sandbox::workspace::archive::Stop;
use herm_store::{DatabaseClock, Location, Options, Store, snapshots};
use herm_types::snapshot::{RETENTION_MS, Snapshot, SnapshotStatus};
use herm_types::time::{ManualClock, SystemRng};
use herm_types::{Clock as _, IdSource, SnapshotId, Timestamp};
use herm_worker::sweep_snapshots;

#[tokio::test]
async fn files_are_removed_when_their_snapshot_expired_or_does_not_exist() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_800_000_000_000_000)));
    let ids = IdSource::new(Arc::clone(&clock) as _, Arc::new(SystemRng));
    let store = Store::open(Options {
        location: Location::Sqlite(dir.path().to_owned()),
        clock: Arc::clone(&clock) as _,
        database_clock: DatabaseClock::FromOptions,
        migrate: true,
        exclusive: true,
    })
    .await
    .unwrap();
    let storage = Snapshots::new(dir.path().join("snapshots"));
    let write = |id: SnapshotId| {
        storage.write(id, &dir.path().join("workspace"), &Stop::default()).unwrap().commit().unwrap();
    };
    let add = async || {
        let now = clock.now();
        let snapshot = Snapshot {
            snapshot_id: ids.next(),
            account_id: ids.next(),
            deployment_id: ids.next(),
            customer_id: "acme".to_owned(),
            status: SnapshotStatus::Creating,
            contents: None,
            error: None,
            created_at: now,
            expires_at: now.plus_ms(RETENTION_MS),
        };
        let id = snapshot.snapshot_id;
        store
            .transaction("add", move |tx| Box::pin(async move { snapshots::insert(tx, &snapshot).await }))
            .await
            .unwrap();
        write(id);
        id
    };
    let first = add().await;
    clock.advance_ms(1);
    let second = add().await;
    let orphan = ids.next();
    write(orphan);
    assert_eq!(sweep_snapshots(&store, &storage).await.unwrap(), 1);
    assert!(storage.open(first).is_ok() && storage.open(orphan).is_err());
    clock.advance_ms(RETENTION_MS - 1);
    assert_eq!(sweep_snapshots(&store, &storage).await.unwrap(), 1);
    assert!(storage.open(first).is_err() && storage.open(second).is_ok());
    assert_eq!(sweep_snapshots(&store, &storage).await.unwrap(), 0);
    clock.advance_ms(1);
    assert_eq!(sweep_snapshots(&store, &storage).await.unwrap(), 1);
    assert_eq!(storage.sweep().unwrap(), []);
}
