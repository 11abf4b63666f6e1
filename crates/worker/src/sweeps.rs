//! Removes data whose retention period has ended: idempotency records, events, snapshots and thread workspaces.

mod batch;
mod events;
mod idempotency;
mod snapshots;
mod threads;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use herm_store::Error;
use tokio_util::sync::CancellationToken;

use crate::context::Context;

pub use events::sweep_events;
pub use idempotency::sweep_idempotency_records;
pub use snapshots::sweep_snapshots;
pub use threads::sweep_threads;

/// The interval between two sweeps, in milliseconds.
const SWEEP_INTERVAL_MS: i64 = 10 * 60 * 1000;

/// Sweeps immediately, because data may have expired while no server was running, and then periodically until `stop`
/// is cancelled.
pub(crate) async fn run(context: Arc<Context>, stop: CancellationToken) {
    loop {
        let sweeps = async {
            log_sweep("idempotency records", sweep_idempotency_records(&context.store).await);
            if let Some(days) = context.event_retention_days {
                log_sweep("events", sweep_events(&context.store, days).await);
            }
            log_sweep("snapshots", sweep_snapshots(&context.store, &context.snapshots).await);
            let stop = |workspace| {
                let pool = context.sandbox_pool.clone();
                async move {
                    pool.stop_unused(workspace).await.map_err(|error| Error::Io(io::Error::other(error)))
                }
            };
            log_sweep("threads' workspaces", sweep_threads(&context.store, &context.workspaces, stop).await);
        };
        // Aborting a sweep at any point is safe, because each batch is its own transaction.
        if stop.run_until_cancelled(sweeps).await.is_none() {
            return;
        }
        let pause = u64::try_from(context.jittered(SWEEP_INTERVAL_MS)).unwrap_or_default();
        if stop.run_until_cancelled(tokio::time::sleep(Duration::from_millis(pause))).await.is_none() {
            return;
        }
    }
}

fn log_sweep(what: &str, swept: Result<u64, Error>) {
    match swept {
        Ok(0) => {}
        Ok(removed) => tracing::debug!(removed, data = what, "removed expired data"),
        // The failed sweep is not retried here: the next sweep removes the remaining data.
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                data = what,
                "failed to remove expired data; the next sweep will retry"
            );
        }
    }
}
