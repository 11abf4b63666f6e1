//! Removes what has been kept long enough.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use herm_sandbox::snapshots::Snapshots;
use herm_store::{Error, Store, idempotent_requests, snapshots};
use tokio_util::sync::CancellationToken;

use crate::worker::Context;

/// Rows that one transaction removes at most, so that others never wait long for it.
const BATCH: i64 = 500;
/// Between two sweeps, in milliseconds.
const SWEEP_EVERY_MS: i64 = 10 * 60 * 1000;

/// Sweeps until it is stopped: at once, for what came of age while no server ran, and then from time to time.
pub(crate) async fn run(context: Arc<Context>, stop: CancellationToken) {
    loop {
        let sweeps = async {
            told("idempotency records", sweep(&context.store).await);
            told("snapshots", sweep_snapshots(&context.store, &context.snapshots).await);
        };
        // Between two batches it stops as well as anywhere.
        if stop.run_until_cancelled(sweeps).await.is_none() {
            return;
        }
        let pause = u64::try_from(context.jittered(SWEEP_EVERY_MS)).unwrap_or_default();
        if stop.run_until_cancelled(tokio::time::sleep(Duration::from_millis(pause))).await.is_none() {
            return;
        }
    }
}

fn told(what: &str, swept: Result<u64, Error>) {
    match swept {
        Ok(0) => {}
        Ok(removed) => tracing::debug!(removed, what, "removed what is outdated"),
        // What is left is as outdated the next time.
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                what,
                "failed to remove what is outdated"
            );
        }
    }
}

/// Removes everything outdated, batch by batch; gives how many rows.
pub async fn sweep(store: &Store) -> Result<u64, Error> {
    let mut removed = 0;
    loop {
        let batch = store
            .transaction("remove_outdated", |tx| Box::pin(idempotent_requests::remove_outdated(tx, BATCH)))
            .await?;
        removed += batch;
        if batch < BATCH.unsigned_abs() {
            return Ok(removed);
        }
    }
}

/// Removes expired snapshots, and then every file that belongs to no snapshot: that of one that has just gone, and what a
/// crash left. Gives how many files.
pub async fn sweep_snapshots(store: &Store, snapshots: &Snapshots) -> Result<u64, Error> {
    loop {
        let batch = store
            .transaction("remove_expired_snapshots", |tx| Box::pin(snapshots::remove_expired(tx, BATCH)))
            .await?;
        if (batch.len() as u64) < BATCH.unsigned_abs() {
            break;
        }
    }
    // A row is there before its file: a file that is seen without one is nobody's for good.
    let on_disk = snapshots.clone();
    let found = blocking(move || on_disk.sweep()).await?;
    let mut removed = 0;
    for ids in found.chunks(BATCH.unsigned_abs() as usize) {
        let asked = ids.to_vec();
        let known = store
            .read("find_snapshots", move |tx| Box::pin(async move { snapshots::known(tx, &asked).await }))
            .await?;
        for id in ids.iter().filter(|id| !known.contains(id)).copied() {
            let on_disk = snapshots.clone();
            blocking(move || on_disk.remove(id)).await?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Does what blocks where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(io::Error::other)??)
}
