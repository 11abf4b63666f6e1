//! Removes events whose retention period has ended.

use herm_store::{Error, Store, events};
use herm_types::DeploymentId;

use super::batch::{BATCH_ROWS, until_empty};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Removes the events that are older than `days` days, in all deployments. Returns the number of removed events.
pub async fn sweep_events(store: &Store, days: u32) -> Result<u64, Error> {
    let retention_ms = i64::from(days) * DAY_MS;
    let (mut after, mut removed) = (None, 0);
    loop {
        let found = store
            .read("find_outdated_events", move |tx| {
                let before = tx.now().plus_ms(-retention_ms);
                Box::pin(events::deployments_with_older(tx, after, before, BATCH_ROWS))
            })
            .await?;
        for deployment_id in found.iter().copied() {
            removed += trim(store, deployment_id, retention_ms).await?;
        }
        after = found.last().copied();
        if (found.len() as u64) < BATCH_ROWS.unsigned_abs() {
            return Ok(removed);
        }
    }
}

/// Removes a deployment's events that are older than `retention_ms`, in batches. Returns the number of removed events.
async fn trim(store: &Store, deployment_id: DeploymentId, retention_ms: i64) -> Result<u64, Error> {
    until_empty(|| {
        store.transaction("trim_events", move |tx| {
            let before = tx.now().plus_ms(-retention_ms);
            Box::pin(events::trim(tx, deployment_id, before, BATCH_ROWS))
        })
    })
    .await
}
