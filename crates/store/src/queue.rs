//! The queue of work items. It is in the same database as the data that the work items refer to, so that one
//! transaction can change both.
//!
//! Claiming a work item returns a [`Lease`]. A lease expires at a certain time and has a fence, a number that grows
//! with each claim of the work item. All of a worker's write transactions check its lease with [`hold`], so a worker
//! that has lost its lease cannot write.

use herm_types::id::Id;
use herm_types::{DeploymentId, ThreadId, Timestamp, WorkId};

use crate::row::params;
use crate::{Error, Tx};

/// Declares the kinds of work items with the text that the database stores for each, so that no kind can be without one.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// The kind of work that a work item stands for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            fn parse(text: &str) -> Result<Self, Error> {
                match text {
                    $($text => Ok(Self::$name),)*
                    unknown => Err(Error::Corrupt(format!("unknown kind of work item {unknown:?}"))),
                }
            }
        }
    };
}

kinds! {
    /// A run has work to do. `subject_id` is the id of the run.
    Run => "run",
    /// A deleted deployment must be torn down. `subject_id` is the id of the deployment.
    Teardown => "teardown",
    /// The contents of a deleted thread must be erased. `subject_id` is the id of the thread.
    EraseThread => "erase_thread",
    /// A new deployment must be provisioned: its image pulled and its snapshot restored. `subject_id` is the id of the
    /// deployment.
    Provision => "provision",
}

/// A worker's exclusive right to a work item until the lease expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub work_id: WorkId,
    pub kind: Kind,
    pub subject_id: String,
    pub deployment_id: DeploymentId,
    /// A number that grows with each claim of the work item. Writes with an older fence fail.
    pub fence: i64,
    /// The number of times that the work item was claimed, including this claim.
    pub attempts: i64,
}

impl Lease {
    /// Returns the id of the run, thread or deployment that the work item is about.
    ///
    /// # Errors
    /// Returns [`Error::Corrupt`] if the subject has an id of another type.
    pub fn subject<I: Id>(&self) -> Result<I, Error> {
        self.subject_id.parse().map_err(|_| {
            Error::Corrupt(format!(
                "work item {} has the invalid subject id {:?}",
                self.work_id, self.subject_id
            ))
        })
    }
}

/// Adds a work item that is due immediately.
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

/// Claims up to `limit` work items that are due and have no valid lease, in the order of their due times.
///
/// If a deployment was deleted, only its teardown is claimed. Its other work items, which were added during the
/// deletion, are removed.
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
            // The deployment is deleted and its event log is closed, so every transaction for this work item would
            // fail.
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

/// Locks the work item of a lease, and fails unless the lease is still the latest claim of the work item.
///
/// # Errors
/// Returns [`Error::LeaseLost`] if the work item was claimed again or removed.
pub async fn hold(tx: &mut Tx, lease: &Lease) -> Result<(), Error> {
    tx.one(
        "SELECT 1 FROM work WHERE work_id = $1 AND fence = $2 FOR UPDATE",
        params![lease.work_id.to_string(), lease.fence],
    )
    .await?
    .map(|_| ())
    .ok_or(Error::LeaseLost)
}

/// Extends a lease: it then expires `lease_ms` milliseconds from now.
///
/// # Errors
/// Returns [`Error::LeaseLost`] if the work item was claimed again or removed.
pub async fn renew(tx: &mut Tx, lease: &Lease, lease_ms: i64) -> Result<(), Error> {
    let until = tx.database_now().await?.plus_ms(lease_ms);
    let renewed = tx
        .execute(
            "UPDATE work SET lease_expires_at = $1 WHERE work_id = $2 AND fence = $3",
            params![until, lease.work_id.to_string(), lease.fence],
        )
        .await?;
    held(renewed)
}

/// Removes a work item whose work is complete.
///
/// # Errors
/// Returns [`Error::LeaseLost`] if the work item was claimed again or removed.
pub async fn complete(tx: &mut Tx, lease: &Lease) -> Result<(), Error> {
    let deleted = tx
        .execute(
            "DELETE FROM work WHERE work_id = $1 AND fence = $2",
            params![lease.work_id.to_string(), lease.fence],
        )
        .await?;
    held(deleted)
}

/// Ends the lease and makes the work item due again in `delay_ms` milliseconds.
///
/// # Errors
/// Returns [`Error::LeaseLost`] if the work item was claimed again or removed.
pub async fn postpone(tx: &mut Tx, lease: &Lease, delay_ms: i64) -> Result<(), Error> {
    let due_at = tx.database_now().await?.plus_ms(delay_ms);
    postpone_until(tx, lease, Some(due_at)).await?;
    tx.work_was_added = true;
    Ok(())
}

/// Ends the lease and makes the work item due again at `due_at`. With `None`, it is not due until [`make_due`] is
/// called.
///
/// # Errors
/// Returns [`Error::LeaseLost`] if the work item was claimed again or removed.
pub async fn postpone_until(tx: &mut Tx, lease: &Lease, due_at: Option<Timestamp>) -> Result<(), Error> {
    let due_at = due_at.unwrap_or(Timestamp::from_micros(i64::MAX));
    let postponed = tx
        .execute(
        "UPDATE work SET lease_owner = NULL, lease_expires_at = 0, due_at = $1 WHERE work_id = $2 AND fence = $3",
        params![due_at, lease.work_id.to_string(), lease.fence],
        )
        .await?;
    held(postponed)
}

/// Returns [`Error::LeaseLost`] if no work item with the lease's fence was changed.
fn held(changed: u64) -> Result<(), Error> {
    if changed == 0 { Err(Error::LeaseLost) } else { Ok(()) }
}

/// Makes a subject's work item due immediately. Called when the state that the work item waits for has changed. A valid
/// lease on the work item remains valid.
///
/// The UPDATE locks the row even if the work item is already due. A worker takes the same lock to end its lease. If it
/// does so before this transaction, the work item is claimed again. If it does so afterwards, it sees the changes of
/// this transaction.
pub async fn make_due(tx: &mut Tx, deployment_id: DeploymentId, subject_id: &str) -> Result<(), Error> {
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

/// Ends all leases and returns their number. A server calls this when it starts, while it holds the exclusive lock on
/// the database, so that it can immediately claim the work of a previous server process. Writes under the old leases
/// fail after the next claim.
pub async fn release_all(tx: &mut Tx) -> Result<u64, Error> {
    let released = tx
        .execute("UPDATE work SET lease_owner = NULL, lease_expires_at = 0 WHERE lease_expires_at > 0", &[])
        .await?;
    tx.work_was_added = true;
    Ok(released)
}

/// Removes all work items of a deployment. Workers that hold a lease on one of them can no longer write.
pub async fn remove_of_deployment(tx: &mut Tx, deployment_id: DeploymentId) -> Result<(), Error> {
    tx.execute("DELETE FROM work WHERE deployment_id = $1", params![deployment_id.to_string()]).await?;
    Ok(())
}

/// Removes the work items of a thread's active runs. Workers that hold a lease on one of them can no longer write.
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

/// Returns the number of work items in the queue, with or without a lease.
pub async fn len(tx: &mut Tx) -> Result<i64, Error> {
    tx.one("SELECT COUNT(*) FROM work", &[]).await?.map_or(Ok(0), |row| row.int(0))
}
