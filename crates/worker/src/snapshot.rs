//! Keeping the files of a deployment that is torn down, if they are to be kept.
//!
//! The snapshot's row says how far that has come. Killed anywhere, what was begun is begun anew: the file has its name
//! when all of it is on the disk, the row is ready when the file has its name, and only then is the workspace destroyed.
//! Where the file cannot be made, the workspace stays, and the row says why; the next attempt comes by itself, until there
//! is a file or nobody wants it any more.

use std::sync::Arc;

use herm_sandbox::workspace::archive::ArchiveError;
use herm_sandbox::{WorkspaceId, workspace};
use herm_store::queue::{self, Lease};
use herm_store::{Error, Tx, fault, snapshots};
use herm_types::SnapshotId;
use herm_types::snapshot::{SnapshotContents, SnapshotError, SnapshotStatus};

use crate::in_hand::{InHand, blocking};
use crate::worker::Context;

/// Before files that could not be kept are tried to be kept again, in milliseconds: an hour, in which somebody may have
/// made room.
pub(crate) const RETRY_MS: i64 = 60 * 60 * 1000;
/// Why a workspace is too large to be kept: no later attempt will find it smaller.
const TOO_LARGE: &str = "too_large";

/// What may happen to the workspace now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Files {
    /// What is wanted of it is kept.
    Done,
    /// It is all there is of what is wanted.
    Wait,
}

pub(crate) async fn keep(context: &Context, lease: &Lease, in_hand: &Arc<InHand>) -> Result<Files, Error> {
    let deployment_id = lease.deployment_id;
    let wanted = context
        .store
        .read("find_snapshot", move |tx| Box::pin(snapshots::find_of_deployment(tx, deployment_id)))
        .await?;
    let Some(snapshot) = wanted.filter(|snapshot| snapshot.status != SnapshotStatus::Ready) else {
        return Ok(Files::Done);
    };
    let snapshot_id = snapshot.snapshot_id;
    match make(context, lease, in_hand, snapshot_id).await {
        Ok(contents) => {
            fault::reach("snapshot", "record");
            record(context, lease, in_hand, snapshot_id, contents).await?;
            Ok(Files::Done)
        }
        Err(error) => {
            tracing::error!(%snapshot_id, error = &error as &dyn std::error::Error, "a snapshot could not be made");
            let (held, error) = (lease.clone(), describe(&error));
            context
                .store
                .transaction("fail_snapshot", move |tx| {
                    Box::pin(async move {
                        queue::hold(tx, &held).await?;
                        snapshots::fail(tx, snapshot_id, &error).await
                    })
                })
                .await?;
            Ok(Files::Wait)
        }
    }
}

async fn make(
    context: &Context,
    lease: &Lease,
    in_hand: &Arc<InHand>,
    snapshot_id: SnapshotId,
) -> Result<SnapshotContents, ArchiveError> {
    let (kept, dir) =
        (context.snapshots.clone(), context.workspaces.dir_of(WorkspaceId::Deployment(lease.deployment_id)));
    let pending = blocking(in_hand, move |stop| kept.write(snapshot_id, &dir, stop)).await?;
    let contents = SnapshotContents {
        size: pending.size_bytes,
        content_size: pending.contents.bytes,
        entries: pending.contents.entries,
        left_out: pending.contents.left_out,
    };
    fault::reach("snapshot", "put");
    blocking(in_hand, move |_| Ok(pending.put()?)).await?;
    Ok(contents)
}

async fn record(
    context: &Context,
    lease: &Lease,
    in_hand: &Arc<InHand>,
    snapshot_id: SnapshotId,
    contents: SnapshotContents,
) -> Result<(), Error> {
    let held = lease.clone();
    let is_wanted = context
        .store
        .transaction("finish_snapshot", move |tx| {
            Box::pin(async move {
                queue::hold(tx, &held).await?;
                snapshots::finish(tx, snapshot_id, contents).await
            })
        })
        .await?;
    if !is_wanted {
        let kept = context.snapshots.clone();
        let removed = blocking(in_hand, move |_| Ok(kept.remove(snapshot_id)?)).await;
        removed.map_err(|error| Error::Io(std::io::Error::other(error)))?;
    }
    Ok(())
}

/// Puts the next attempt off; not where nobody wants the files any more.
pub(crate) async fn postpone(tx: &mut Tx, lease: &Lease, retry_ms: i64) -> Result<(), Error> {
    let delay_ms = match snapshots::find_of_deployment(tx, lease.deployment_id).await? {
        None => 0,
        Some(snapshot) if snapshot.error.as_ref().is_some_and(|error| error.code == TOO_LARGE) => {
            let left = snapshot.expires_at.as_micros() - tx.database_now().await?.as_micros();
            (left / 1000).max(retry_ms)
        }
        Some(_) => retry_ms,
    };
    queue::postpone(tx, lease, delay_ms).await
}

fn describe(error: &ArchiveError) -> SnapshotError {
    let (code, message) = match error {
        ArchiveError::Files(workspace::Error::NoSpace) => (
            "no_space",
            "The server's disk has no room for it. The files are still where they were; the server tries again every \
             hour."
                .to_owned(),
        ),
        ArchiveError::TooLarge(what) => (
            TOO_LARGE,
            format!("It cannot be kept: {what}. The files are still where they were, on the server, until it expires."),
        ),
        other => (
            "failed",
            format!("{other}. The files are still where they were; the server tries again every hour."),
        ),
    };
    SnapshotError { code: code.to_owned(), message }
}
