//! Removes what has been kept long enough.

use std::sync::Arc;
use std::time::Duration;

use herm_store::{Error, Store, idempotent_requests};
use tokio_util::sync::CancellationToken;

use crate::worker::Context;

/// Rows that one transaction removes at most, so that others never wait long for it.
const BATCH: i64 = 500;
/// Between two sweeps, in milliseconds.
const SWEEP_EVERY_MS: i64 = 10 * 60 * 1000;

/// Sweeps until it is stopped: at once, for what came of age while no server ran, and then from time to time.
pub(crate) async fn run(context: Arc<Context>, stop: CancellationToken) {
    loop {
        // Between two batches it stops as well as anywhere.
        match stop.run_until_cancelled(sweep(&context.store)).await {
            None => return,
            Some(Ok(0)) => {}
            Some(Ok(removed)) => tracing::debug!(removed, "removed outdated idempotency records"),
            // What is left is as outdated the next time.
            Some(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "failed to remove outdated records");
            }
        }
        let pause = u64::try_from(context.jittered(SWEEP_EVERY_MS)).unwrap_or_default();
        if stop.run_until_cancelled(tokio::time::sleep(Duration::from_millis(pause))).await.is_none() {
            return;
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
