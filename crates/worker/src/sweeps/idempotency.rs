//! Removes idempotency records whose retention period has ended.

use herm_store::{Error, Store, idempotent_requests};

use super::batch::{BATCH_ROWS, until_empty};

/// Removes expired idempotency records in batches. Returns the number of removed records.
pub async fn sweep_idempotency_records(store: &Store) -> Result<u64, Error> {
    until_empty(|| {
        store.transaction("remove_outdated", |tx| {
            Box::pin(idempotent_requests::remove_outdated(tx, BATCH_ROWS))
        })
    })
    .await
}
