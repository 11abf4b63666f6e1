//! Snapshots that came of age go with their files, and so does every file that belongs to none.

use std::sync::Arc;

use herm_sandbox::snapshots::Snapshots;
use herm_sandbox::workspace::archive::Stop;
use herm_store::{DatabaseClock, Location, Options, Store, snapshots};
use herm_types::snapshot::{KEPT_MS, Snapshot, SnapshotStatus};
use herm_types::time::{ManualClock, SystemRng};
use herm_types::{Clock as _, IdSource, SnapshotId, Timestamp};
use herm_worker::sweep_snapshots;

#[tokio::test]
async fn files_go_when_their_snapshot_expires_or_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_800_000_000_000_000)));
    let ids = IdSource::new(Arc::clone(&clock) as _, Arc::new(SystemRng));
    let store = Store::open(Options {
        location: Location::Sqlite(dir.path().to_owned()),
        clock: Arc::clone(&clock) as _,
        database_clock: DatabaseClock::Given,
        migrate: true,
        exclusive: true,
    })
    .await
    .unwrap();
    let kept = Snapshots::new(dir.path().join("snapshots"));
    let write = |id: SnapshotId| {
        kept.write(id, &dir.path().join("workspace"), &Stop::default()).unwrap().put().unwrap();
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
            expires_at: now.plus_ms(KEPT_MS),
        };
        let id = snapshot.snapshot_id;
        store
            .transaction("add", move |tx| Box::pin(async move { snapshots::insert(tx, &snapshot).await }))
            .await
            .unwrap();
        write(id);
        id
    };
    let old = add().await;
    clock.advance_ms(1);
    let young = add().await;
    let nobodys = ids.next();
    write(nobodys);
    assert_eq!(sweep_snapshots(&store, &kept).await.unwrap(), 1);
    assert!(kept.open(old).is_ok() && kept.open(nobodys).is_err());
    clock.advance_ms(KEPT_MS - 1);
    assert_eq!(sweep_snapshots(&store, &kept).await.unwrap(), 1);
    assert!(kept.open(old).is_err() && kept.open(young).is_ok());
    assert_eq!(sweep_snapshots(&store, &kept).await.unwrap(), 0);
    clock.advance_ms(1);
    assert_eq!(sweep_snapshots(&store, &kept).await.unwrap(), 1);
    assert_eq!(kept.sweep().unwrap(), []);
}
