//! Functions that the sweeps share: removal of rows in small batches, and blocking file operations.

use std::future::Future;
use std::io;

use herm_store::Error;

/// The maximum number of rows that are removed in one transaction. Small batches keep the transactions short, so that
/// other writers do not wait long.
pub(super) const BATCH_ROWS: i64 = 500;

/// Calls `remove` until a call removes fewer than `BATCH_ROWS` rows. Each call removes up to `BATCH_ROWS` rows and
/// returns their number. Returns the total number of removed rows.
pub(super) async fn until_empty<F>(remove: impl Fn() -> F + Send) -> Result<u64, Error>
where
    F: Future<Output = Result<u64, Error>> + Send,
{
    let mut removed = 0;
    loop {
        let batch = remove().await?;
        removed += batch;
        if batch < BATCH_ROWS.unsigned_abs() {
            return Ok(removed);
        }
    }
}

/// Runs blocking file operations on Tokio's blocking thread pool.
pub(super) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(io::Error::other)??)
}
