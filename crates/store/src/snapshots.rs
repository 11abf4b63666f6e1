//! Snapshots: a row each from the deletion of their deployment on. The archive is a file, which belongs to its row: one
//! without a row is nobody's.

use std::collections::BTreeSet;

use herm_types::paging::PageRequest;
use herm_types::snapshot::{Snapshot, SnapshotContents, SnapshotError, SnapshotStatus};
use herm_types::{AccountId, DeploymentId, SnapshotId};

use crate::deployments::last_id;
use crate::queue;
use crate::row::{Row, params};
use crate::{Error, Tx};

/// Which snapshots of an account are listed; what is `None` does not filter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub deployment_id: Option<DeploymentId>,
    pub customer_id: Option<String>,
    pub status: Option<SnapshotStatus>,
}

/// Adds a snapshot that is to be made.
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

/// The snapshot with this id, whosever it is.
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

/// The snapshot of a deleted deployment, if its files were to be kept.
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

/// A page of an account's snapshots, newest first, with one row more than asked for where there is one.
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
                page.after.clone().unwrap_or_else(last_id::<SnapshotId>),
                filter.deployment_id.map(|id| id.to_string()).unwrap_or_default(),
                filter.customer_id.clone().unwrap_or_default(),
                filter.status.map_or("", SnapshotStatus::as_str),
                i64::from(page.limit) + 1,
            ],
        )
        .await?;
    rows.iter().map(snapshot).collect()
}

/// Notes that a snapshot's file is there; `false` if its row went meanwhile, and then nobody wants the file.
pub async fn finish(tx: &mut Tx, snapshot_id: SnapshotId, contents: SnapshotContents) -> Result<bool, Error> {
    let changed = tx
        .execute(
            "UPDATE snapshots SET status = 'ready', contents = $1, error = NULL WHERE snapshot_id = $2",
            params![serde_json::to_string(&contents)?, snapshot_id.to_string()],
        )
        .await?;
    Ok(changed == 1)
}

/// Notes why a snapshot could not be made.
pub async fn fail(tx: &mut Tx, snapshot_id: SnapshotId, error: &SnapshotError) -> Result<(), Error> {
    tx.execute(
        "UPDATE snapshots SET status = 'error', error = $1 WHERE snapshot_id = $2 AND status <> 'ready'",
        params![serde_json::to_string(error)?, snapshot_id.to_string()],
    )
    .await?;
    Ok(())
}

/// Removes a snapshot's row; `false` if it is gone already. Its file is nobody's from then on. What its deployment's
/// tearing-down has kept for it, it keeps no longer.
pub async fn delete(tx: &mut Tx, snapshot: &Snapshot) -> Result<bool, Error> {
    let (id, deployment_id) = (snapshot.snapshot_id.to_string(), snapshot.deployment_id);
    // Locked in the order in which who makes it does.
    queue::hasten(tx, deployment_id, &deployment_id.to_string()).await?;
    let deleted = tx.execute("DELETE FROM snapshots WHERE snapshot_id = $1", params![id]).await?;
    Ok(deleted == 1)
}

/// Removes up to `limit` snapshots that are not kept any longer, the oldest first; gives them.
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

/// Those of the snapshots that have a row.
pub async fn known(tx: &mut Tx, ids: &[SnapshotId]) -> Result<BTreeSet<SnapshotId>, Error> {
    let mut known = BTreeSet::new();
    for id in ids {
        let row = tx.one("SELECT 1 FROM snapshots WHERE snapshot_id = $1", params![id.to_string()]).await?;
        known.extend(row.map(|_| *id));
    }
    Ok(known)
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
