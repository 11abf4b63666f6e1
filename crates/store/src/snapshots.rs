//! Snapshots. The row of a snapshot is inserted when its deployment is deleted. The archive is a file that is written
//! later. Archive files without a row are deleted.

use std::collections::BTreeSet;

use herm_types::paging::PageRequest;
use herm_types::snapshot::{Snapshot, SnapshotContents, SnapshotError, SnapshotStatus};
use herm_types::{AccountId, DeploymentId, SnapshotId};

use crate::deployments::max_id;
use crate::queue;
use crate::row::{Row, params};
use crate::{Error, Tx};

/// Filters for a list of snapshots. A filter that is `None` matches every snapshot.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub deployment_id: Option<DeploymentId>,
    pub customer_id: Option<String>,
    pub status: Option<SnapshotStatus>,
}

/// Inserts the row of a snapshot whose archive is not written yet.
pub async fn insert(tx: &mut Tx, snapshot: &Snapshot) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO snapshots (snapshot_id, account_id, deployment_id, customer_id, status, contents, error, \
         created_at, expires_at) VALUES ($1, $2, $3, $4, $5, NULL, NULL, $6, $7)",
        params![
            snapshot.snapshot_id.to_string(),
            snapshot.account_id.to_string(),
            snapshot.deployment_id.to_string(),
            snapshot.customer_id.as_str(),
            snapshot.status.as_str(),
            snapshot.created_at,
            snapshot.expires_at,
        ],
    )
    .await?;
    Ok(())
}

/// Returns the snapshot with this id, in any account.
pub async fn find(tx: &mut Tx, snapshot_id: SnapshotId) -> Result<Option<Snapshot>, Error> {
    tx.one(
        "SELECT snapshot_id, account_id, deployment_id, customer_id, status, contents, error, created_at, expires_at \
         FROM snapshots WHERE snapshot_id = $1",
        params![snapshot_id.to_string()],
    )
    .await?
    .map(|row| snapshot(&row))
    .transpose()
}

/// Returns the snapshot of a deleted deployment, or `None` if it has no snapshot.
pub async fn find_of_deployment(tx: &mut Tx, deployment_id: DeploymentId) -> Result<Option<Snapshot>, Error> {
    tx.one(
        "SELECT snapshot_id, account_id, deployment_id, customer_id, status, contents, error, created_at, expires_at \
         FROM snapshots WHERE deployment_id = $1",
        params![deployment_id.to_string()],
    )
    .await?
    .map(|row| snapshot(&row))
    .transpose()
}

/// Returns a page of an account's snapshots, newest first, plus one extra row if there is a next page.
pub async fn list(
    tx: &mut Tx,
    account_id: AccountId,
    filter: &Filter,
    page: &PageRequest,
) -> Result<Vec<Snapshot>, Error> {
    let rows = tx
        .all(
            "SELECT snapshot_id, account_id, deployment_id, customer_id, status, contents, error, created_at, \
             expires_at FROM snapshots WHERE account_id = $1 AND snapshot_id < $2 \
             AND ($3 = '' OR deployment_id = $3) AND ($4 = '' OR customer_id = $4) AND ($5 = '' OR status = $5) \
             ORDER BY snapshot_id DESC LIMIT $6",
            params![
                account_id.to_string(),
                page.after.clone().unwrap_or_else(max_id::<SnapshotId>),
                filter.deployment_id.map(|id| id.to_string()).unwrap_or_default(),
                filter.customer_id.clone().unwrap_or_default(),
                filter.status.map_or("", SnapshotStatus::as_str),
                i64::from(page.limit) + 1,
            ],
        )
        .await?;
    rows.iter().map(snapshot).collect()
}

/// Records that a snapshot's archive is complete. Returns false if the snapshot was deleted in the meantime, in which
/// case the archive is no longer needed.
pub async fn finish(tx: &mut Tx, snapshot_id: SnapshotId, contents: SnapshotContents) -> Result<bool, Error> {
    let changed = tx
        .execute(
            "UPDATE snapshots SET status = 'ready', contents = $1, error = NULL WHERE snapshot_id = $2",
            params![serde_json::to_string(&contents)?, snapshot_id.to_string()],
        )
        .await?;
    Ok(changed == 1)
}

/// Records that a snapshot failed, with the error. Has no effect if its archive is already complete.
pub async fn fail(tx: &mut Tx, snapshot_id: SnapshotId, error: &SnapshotError) -> Result<(), Error> {
    tx.execute(
        "UPDATE snapshots SET status = 'error', error = $1 WHERE snapshot_id = $2 AND status <> 'ready'",
        params![serde_json::to_string(error)?, snapshot_id.to_string()],
    )
    .await?;
    Ok(())
}

/// Deletes a snapshot's row. Returns false if it was already deleted. Afterwards the archive is no longer needed. If
/// the deployment's teardown is still writing the archive, it stops writing.
pub async fn delete(tx: &mut Tx, snapshot: &Snapshot) -> Result<bool, Error> {
    let (id, deployment_id) = (snapshot.snapshot_id.to_string(), snapshot.deployment_id);
    // Locks the work item of the deployment's teardown before the snapshot's row. The worker that writes the snapshot
    // locks the two in the same order, so the transactions cannot deadlock.
    queue::make_due(tx, deployment_id, &deployment_id.to_string()).await?;
    let deleted = tx.execute("DELETE FROM snapshots WHERE snapshot_id = $1", params![id]).await?;
    Ok(deleted == 1)
}

/// Deletes the rows of expired snapshots, oldest first and up to `limit`. Returns the deleted snapshots.
pub async fn remove_expired(tx: &mut Tx, limit: i64) -> Result<Vec<Snapshot>, Error> {
    let now = tx.database_now().await?;
    let rows = tx
        .all(
            "SELECT snapshot_id, account_id, deployment_id, customer_id, status, contents, error, created_at, \
             expires_at FROM snapshots WHERE expires_at <= $1 ORDER BY expires_at, snapshot_id LIMIT $2",
            params![now, limit],
        )
        .await?;
    let expired = rows.iter().map(snapshot).collect::<Result<Vec<_>, _>>()?;
    for one in &expired {
        delete(tx, one).await?;
    }
    Ok(expired)
}

/// Returns the subset of `ids` for which a snapshot exists.
pub async fn existing(tx: &mut Tx, ids: &[SnapshotId]) -> Result<BTreeSet<SnapshotId>, Error> {
    let mut existing = BTreeSet::new();
    for id in ids {
        let row = tx.one("SELECT 1 FROM snapshots WHERE snapshot_id = $1", params![id.to_string()]).await?;
        existing.extend(row.map(|_| *id));
    }
    Ok(existing)
}

fn snapshot(row: &Row) -> Result<Snapshot, Error> {
    let status = row.str(4)?;
    Ok(Snapshot {
        snapshot_id: row.parse(0)?,
        account_id: row.parse(1)?,
        deployment_id: row.parse(2)?,
        customer_id: row.text(3)?,
        status: SnapshotStatus::parse(status)
            .ok_or_else(|| Error::Corrupt(format!("unknown snapshot status {status:?}")))?,
        contents: row.opt_str(5)?.map(serde_json::from_str).transpose()?,
        error: row.opt_str(6)?.map(serde_json::from_str).transpose()?,
        created_at: row.time(7)?,
        expires_at: row.time(8)?,
    })
}
