//! Creates a snapshot of a deleted deployment's workspace while the deployment is torn down, if a snapshot was
//! requested.
//!
//! The snapshot's row records the progress, and every step can be repeated after a crash. The archive is written
//! completely to disk, then renamed to its final name. Then the row gets the status `ready`, and only then is the
//! workspace destroyed. If the archive cannot be written, the workspace is retained and the row records the error. The
//! server repeats the attempt until it succeeds or the snapshot is deleted.

use std::sync::Arc;

use herm_sandbox::workspace::archive::ArchiveError;
use herm_sandbox::{WorkspaceId, workspace};
use herm_store::queue::{self, Lease};
use herm_store::{Error, Tx, failpoint, snapshots};
use herm_types::SnapshotId;
use herm_types::snapshot::{SnapshotContents, SnapshotError, SnapshotStatus};

use crate::context::Context;
use crate::lease::HeldLease;
use crate::running::{RunningGuard, run_blocking};

/// The delay before a failed snapshot is attempted again, in milliseconds: one hour, which leaves time to free disk
/// space.
pub(super) const RETRY_DELAY_MS: i64 = 60 * 60 * 1000;
/// The error code of a snapshot whose workspace is too large. Retrying does not help, because the workspace of a
/// deleted deployment does not shrink.
const TOO_LARGE: &str = "too_large";

/// The action that the teardown takes on the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkspaceFate {
    /// Destroy the workspace: the snapshot is complete, or no snapshot was requested.
    Destroy,
    /// Retain the workspace: it holds the only copy of the files that were to be saved in the snapshot.
    Retain,
}

pub(super) async fn create_if_requested(
    context: &Context,
    lease: &HeldLease,
    guard: &Arc<RunningGuard>,
) -> Result<WorkspaceFate, Error> {
    let deployment_id = lease.deployment_id;
    let snapshot = context
        .store
        .read("find_snapshot", move |tx| Box::pin(snapshots::find_of_deployment(tx, deployment_id)))
        .await?;
    let Some(snapshot) = snapshot.filter(|snapshot| snapshot.status != SnapshotStatus::Ready) else {
        return Ok(WorkspaceFate::Destroy);
    };
    let snapshot_id = snapshot.snapshot_id;
    match write_archive(context, lease, guard, snapshot_id).await {
        Ok(contents) => {
            failpoint::reach("snapshot", "record");
            record(context, lease, guard, snapshot_id, contents).await?;
            Ok(WorkspaceFate::Destroy)
        }
        Err(error) => {
            tracing::error!(%snapshot_id, %deployment_id, error = &error as &dyn std::error::Error, "failed to create a snapshot of a deleted deployment");
            let error = snapshot_error(&error);
            lease
                .transaction("fail_snapshot", move |tx, _| {
                    Box::pin(async move { snapshots::fail(tx, snapshot_id, &error).await })
                })
                .await?;
            Ok(WorkspaceFate::Retain)
        }
    }
}

async fn write_archive(
    context: &Context,
    lease: &HeldLease,
    guard: &Arc<RunningGuard>,
    snapshot_id: SnapshotId,
) -> Result<SnapshotContents, ArchiveError> {
    let (snapshots, dir) =
        (context.snapshots.clone(), context.workspaces.dir_of(WorkspaceId::Deployment(lease.deployment_id)));
    let pending = run_blocking(guard, move |stop| snapshots.write(snapshot_id, &dir, stop)).await?;
    let contents = SnapshotContents {
        size: pending.size_bytes,
        content_size: pending.contents.bytes,
        entries: pending.contents.entries,
        left_out: pending.contents.left_out,
    };
    failpoint::reach("snapshot", "put");
    run_blocking(guard, move |_| Ok(pending.commit()?)).await?;
    Ok(contents)
}

async fn record(
    context: &Context,
    lease: &HeldLease,
    guard: &Arc<RunningGuard>,
    snapshot_id: SnapshotId,
    contents: SnapshotContents,
) -> Result<(), Error> {
    let row_exists = lease
        .transaction("finish_snapshot", move |tx, _| {
            Box::pin(async move { snapshots::finish(tx, snapshot_id, contents).await })
        })
        .await?;
    if !row_exists {
        let snapshots = context.snapshots.clone();
        let removed = run_blocking(guard, move |_| Ok(snapshots.remove(snapshot_id)?)).await;
        removed.map_err(|error| Error::Io(std::io::Error::other(error)))?;
    }
    Ok(())
}

/// Schedules the next attempt to create the snapshot. If the workspace is too large, the next attempt is due when the
/// snapshot expires. If the snapshot was deleted, the teardown is due at once, to destroy the workspace.
pub(super) async fn postpone(tx: &mut Tx, lease: &Lease, retry_ms: i64) -> Result<(), Error> {
    let delay_ms = match snapshots::find_of_deployment(tx, lease.deployment_id).await? {
        None => 0,
        Some(snapshot) if snapshot.error.as_ref().is_some_and(|error| error.code == TOO_LARGE) => {
            let remaining_us = snapshot.expires_at.as_micros() - tx.database_now().await?.as_micros();
            (remaining_us / 1000).max(retry_ms)
        }
        Some(_) => retry_ms,
    };
    queue::postpone(tx, lease, delay_ms).await
}

fn snapshot_error(error: &ArchiveError) -> SnapshotError {
    let (code, message) = match error {
        ArchiveError::Files(workspace::Error::NoSpace) => (
            "no_space",
            "The server's disk has no space for the snapshot. The files are still in the workspace, and the server \
             retries every hour."
                .to_owned(),
        ),
        ArchiveError::TooLarge(reason) => (
            TOO_LARGE,
            format!("The snapshot cannot be created: {reason}. The files stay on the server until the snapshot expires."),
        ),
        other => (
            "failed",
            format!("Failed to create the snapshot: {other}. The files are still in the workspace, and the server retries every hour."),
        ),
    };
    SnapshotError { code: code.to_owned(), message }
}
