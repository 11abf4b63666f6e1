//! The queue: work items on the same database as the rows and events they belong to.
//!
//! A claim gives a [`Lease`]: a time until which the item is the worker's, and a fencing token that grows with
//! each claim. Every write of a worker holds its lease in the same transaction ([`hold`]), so that a worker
//! that lost it cannot write.

use herm_types::{DeploymentId, ThreadId, Timestamp, WorkId};

use crate::row::params;
use crate::{Error, Tx};

/// What a work item asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Advance a run; the subject is its id.
    Run,
    /// Tear a deleted deployment down; the subject is its id.
    Teardown,
    /// Erase what a deleted thread left; the subject is its id.
    EraseThread,
    /// Get ready what a new deployment needs: its image, the files that it begins with; the subject is its id.
    Provision,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Teardown => "teardown",
            Self::EraseThread => "erase_thread",
            Self::Provision => "provision",
        }
    }

    fn parse(text: &str) -> Result<Self, Error> {
        [Self::Run, Self::Teardown, Self::EraseThread, Self::Provision]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| Error::Corrupt(format!("unknown kind of work {text:?}")))
    }
}

/// A claimed work item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub work_id: WorkId,
    pub kind: Kind,
    pub subject_id: String,
    pub deployment_id: DeploymentId,
    /// Grows with each claim of the item.
    pub fence: i64,
    /// How many times it was claimed, this one included.
    pub attempts: i64,
}

/// Adds a work item that is due at once.
pub async fn enqueue(
    tx: &mut Tx,
    work_id: WorkId,
    kind: Kind,
    subject_id: String,
    deployment_id: DeploymentId,
) -> Result<(), Error> {
    let now = tx.database_now().await?;
    tx.execute(
        "INSERT INTO work (work_id, kind, subject_id, deployment_id, due_at, lease_owner, lease_expires_at, \
         fence, attempts) VALUES ($1, $2, $3, $4, $5, NULL, 0, 0, 0)",
        params![work_id.to_string(), kind.as_str(), subject_id, deployment_id.to_string(), now],
    )
    .await?;
    tx.work_was_added = true;
    Ok(())
}

/// Claims up to `limit` items that are due and that no live lease covers, the longest due first. Of a deployment that is
/// deleted only the tearing down is given; what else was queued while it was deleted is removed.
pub async fn claim(tx: &mut Tx, owner: &str, limit: i64, lease_ms: i64) -> Result<Vec<Lease>, Error> {
    let now = tx.database_now().await?;
    let rows = tx
        .all(
            "SELECT work_id, kind, subject_id, deployment_id, fence, attempts, \
             (SELECT COUNT(*) FROM deployments d WHERE d.deployment_id = work.deployment_id) FROM work \
             WHERE due_at <= $1 AND lease_expires_at <= $1 ORDER BY due_at, work_id LIMIT $2 \
             FOR UPDATE SKIP LOCKED",
            params![now, limit],
        )
        .await?;
    let mut leases = Vec::with_capacity(rows.len());
    for row in &rows {
        let lease = Lease {
            work_id: row.parse(0)?,
            kind: Kind::parse(row.str(1)?)?,
            subject_id: row.text(2)?,
            deployment_id: row.parse(3)?,
            fence: row.int(4)? + 1,
            attempts: row.int(5)? + 1,
        };
        if row.int(6)? == 0 && lease.kind != Kind::Teardown {
            // No event can be written for it, so that it would be in the way of all that is claimed with it.
            let removed = "DELETE FROM work WHERE work_id = $1";
            tx.execute(removed, params![lease.work_id.to_string()]).await?;
            continue;
        }
        tx.execute(
            "UPDATE work SET lease_owner = $1, lease_expires_at = $2, fence = $3, attempts = $4 \
             WHERE work_id = $5",
            params![owner, now.plus_ms(lease_ms), lease.fence, lease.attempts, lease.work_id.to_string()],
        )
        .await?;
        leases.push(lease);
    }
    Ok(leases)
}

/// Makes sure, within the transaction, that the lease is still the item's latest.
///
/// # Errors
/// [`Error::LeaseLost`] if the item was claimed anew or is gone.
pub async fn hold(tx: &mut Tx, lease: &Lease) -> Result<(), Error> {
    tx.one(
        "SELECT 1 FROM work WHERE work_id = $1 AND fence = $2 FOR UPDATE",
        params![lease.work_id.to_string(), lease.fence],
    )
    .await?
    .map(|_| ())
    .ok_or(Error::LeaseLost)
}

/// Prolongs a lease from now on.
pub async fn renew(tx: &mut Tx, lease: &Lease, lease_ms: i64) -> Result<(), Error> {
    hold(tx, lease).await?;
    let until = tx.database_now().await?.plus_ms(lease_ms);
    tx.execute(
        "UPDATE work SET lease_expires_at = $1 WHERE work_id = $2",
        params![until, lease.work_id.to_string()],
    )
    .await?;
    Ok(())
}

/// Removes an item whose work is done.
pub async fn complete(tx: &mut Tx, lease: &Lease) -> Result<(), Error> {
    hold(tx, lease).await?;
    tx.execute("DELETE FROM work WHERE work_id = $1", params![lease.work_id.to_string()]).await?;
    Ok(())
}

/// Gives an item back, due after `delay_ms`.
pub async fn postpone(tx: &mut Tx, lease: &Lease, delay_ms: i64) -> Result<(), Error> {
    hold(tx, lease).await?;
    let due_at = tx.database_now().await?.plus_ms(delay_ms);
    tx.execute(
        "UPDATE work SET lease_owner = NULL, lease_expires_at = 0, due_at = $1 WHERE work_id = $2",
        params![due_at, lease.work_id.to_string()],
    )
    .await?;
    tx.work_was_added = true;
    Ok(())
}

/// Gives an item back, due at `due_at`; `None`: not before it is hastened.
pub async fn postpone_until(tx: &mut Tx, lease: &Lease, due_at: Option<Timestamp>) -> Result<(), Error> {
    hold(tx, lease).await?;
    tx.execute(
        "UPDATE work SET lease_owner = NULL, lease_expires_at = 0, due_at = $1 WHERE work_id = $2",
        params![due_at.unwrap_or(Timestamp::from_micros(i64::MAX)), lease.work_id.to_string()],
    )
    .await?;
    Ok(())
}

/// Makes a subject's item due at once: what it waited for has come, or matters no more. A lease stays as it is. The
/// item is locked in any case, so that who holds it either sees what this transaction writes, or has let go of it
/// before.
pub async fn hasten(tx: &mut Tx, deployment_id: DeploymentId, subject_id: &str) -> Result<(), Error> {
    let now = tx.database_now().await?;
    tx.execute(
        "UPDATE work SET due_at = CASE WHEN due_at > $1 THEN $1 ELSE due_at END \
         WHERE deployment_id = $2 AND subject_id = $3",
        params![now, deployment_id.to_string(), subject_id],
    )
    .await?;
    tx.work_was_added = true;
    Ok(())
}

/// Ends every lease: what a server does at its start, when it holds the database alone, so that what an earlier
/// one left behind is taken up at once. The old leases' fences no longer hold after the next claim.
pub async fn release_all(tx: &mut Tx) -> Result<u64, Error> {
    let released = tx
        .execute("UPDATE work SET lease_owner = NULL, lease_expires_at = 0 WHERE lease_expires_at > 0", &[])
        .await?;
    tx.work_was_added = true;
    Ok(released)
}

/// Removes what is queued for a deployment, so that every worker on it is fenced off.
pub async fn remove_of_deployment(tx: &mut Tx, deployment_id: DeploymentId) -> Result<(), Error> {
    tx.execute("DELETE FROM work WHERE deployment_id = $1", params![deployment_id.to_string()]).await?;
    Ok(())
}

/// Removes what is queued for a thread's runs, so that every worker on them is fenced off.
pub async fn remove_of_thread(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    thread_id: ThreadId,
) -> Result<(), Error> {
    tx.execute(
        "DELETE FROM work WHERE deployment_id = $1 AND subject_id IN \
         (SELECT run_id FROM runs WHERE thread_id = $2 AND ended_at IS NULL)",
        params![deployment_id.to_string(), thread_id.to_string()],
    )
    .await?;
    Ok(())
}

/// How many items there are, leased or not.
pub async fn len(tx: &mut Tx) -> Result<i64, Error> {
    tx.one("SELECT COUNT(*) FROM work", &[]).await?.map_or(Ok(0), |row| row.int(0))
}
