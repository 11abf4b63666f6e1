//! Removes snapshots whose retention period has ended.

use herm_sandbox::snapshots::Snapshots;
use herm_store::{Error, Store, snapshots};

use super::batch::{BATCH_ROWS, run_blocking, until_empty};

/// Removes the rows of expired snapshots, then every snapshot file without a row: the files of the removed snapshots,
/// and files left by a crash. Returns the number of removed files.
pub async fn sweep_snapshots(store: &Store, snapshots: &Snapshots) -> Result<u64, Error> {
    until_empty(|| async {
        let removed = store
            .transaction("remove_expired_snapshots", |tx| Box::pin(snapshots::remove_expired(tx, BATCH_ROWS)))
            .await?;
        Ok(removed.len() as u64)
    })
    .await?;
    // A snapshot's row is inserted before its file is written, so a file without a row does not belong to a snapshot
    // that is still being created.
    let on_disk = snapshots.clone();
    let found = run_blocking(move || on_disk.sweep()).await?;
    let mut removed = 0;
    for ids in found.chunks(BATCH_ROWS.unsigned_abs() as usize) {
        let candidates = ids.to_vec();
        let known = store
            .read("find_snapshots", move |tx| {
                Box::pin(async move { snapshots::existing(tx, &candidates).await })
            })
            .await?;
        for id in ids.iter().filter(|id| !known.contains(id)).copied() {
            let on_disk = snapshots.clone();
            run_blocking(move || on_disk.remove(id)).await?;
            removed += 1;
        }
    }
    Ok(removed)
}
