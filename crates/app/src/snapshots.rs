//! Snapshots: the archived files of deleted deployments, which a new deployment can restore.

use std::io;

use herm_store::{Tx, snapshots};
use herm_types::deployment::Deployment;
use herm_types::key::Scope;
use herm_types::paging::{Page, PageRequest};
use herm_types::snapshot::{RETENTION_MS, Snapshot, SnapshotStatus};
use herm_types::{Error as ApiError, ErrorCode, FieldError, SnapshotId};

use crate::files::OpenedFile;
use crate::{App, Caller, Error};

/// Filters snapshots by customer and status. A field that is `None` matches every snapshot.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    pub customer_id: Option<String>,
    pub status: Option<SnapshotStatus>,
}

/// Returns a page of the snapshots that the caller may access, newest first.
pub async fn list(
    app: &App,
    caller: &Caller,
    filter: ListFilter,
    page: PageRequest,
) -> Result<Page<Snapshot>, Error> {
    require(caller, Scope::DeploymentsRead)?;
    let (account_id, limits, limit) = (caller.account_id(), caller.key().clone(), page.limit);
    // A key that is restricted to one customer sees no other customer's snapshots, even if the filter names
    // another customer.
    if let (Some(limit), Some(requested)) = (&limits.customer_id, &filter.customer_id)
        && limit != requested
    {
        return Ok(Page { data: Vec::new(), next_cursor: None });
    }
    let filter = snapshots::Filter {
        deployment_id: limits.deployment_id,
        customer_id: limits.customer_id.or(filter.customer_id),
        status: filter.status,
    };
    let rows = app
        .store
        .read("list_snapshots", move |tx| {
            Box::pin(async move { snapshots::list(tx, account_id, &filter, &page).await })
        })
        .await?;
    Ok(Page::from_rows(rows, limit, |row| row.snapshot_id.to_string()))
}

pub async fn get(app: &App, caller: &Caller, snapshot_id: SnapshotId) -> Result<Snapshot, Error> {
    require(caller, Scope::DeploymentsRead)?;
    find(app, caller, snapshot_id).await
}

/// Opens the archive of a snapshot. The open file stays readable even if the snapshot is deleted in the
/// meantime.
///
/// # Errors
/// Returns `conflict` if the snapshot is not ready.
pub async fn open(app: &App, caller: &Caller, snapshot_id: SnapshotId) -> Result<OpenedFile, Error> {
    require(caller, Scope::DeploymentsRead)?;
    require_ready(&find(app, caller, snapshot_id).await?)?;
    let snapshots = app.settings.snapshots.clone();
    let opened = blocking(move || {
        let file = snapshots.open(snapshot_id)?;
        let size = file.metadata()?.len();
        Ok(OpenedFile { file, size, etag: format!("{snapshot_id}-{size:x}") })
    });
    match opened.await {
        // The archive is missing, probably because the snapshot was deleted after its row was read. If so,
        // this second `find` fails with `not_found`.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            find(app, caller, snapshot_id).await?;
            Err(Error::Snapshot(error))
        }
        opened => opened.map_err(Error::Snapshot),
    }
}

/// Deletes a snapshot permanently, even if it is not ready.
pub async fn delete(app: &App, caller: &Caller, snapshot_id: SnapshotId) -> Result<(), Error> {
    require(caller, Scope::DeploymentsWrite)?;
    let caller = caller.clone();
    app.store
        .transaction("delete_snapshot", move |tx| {
            Box::pin(async move {
                let snapshot = caller.snapshot(tx, snapshot_id).await?;
                if snapshots::delete(tx, &snapshot).await? {
                    return Ok(());
                }
                Err(Error::from(ApiError::not_found("snapshot", &snapshot_id.to_string())))
            })
        })
        .await?;
    let snapshots = app.settings.snapshots.clone();
    if let Err(error) = blocking(move || snapshots.remove(snapshot_id)).await {
        // The request still succeeds: the next pass of the retention job removes all archives without a row.
        tracing::warn!(%snapshot_id, error = &error as &dyn std::error::Error, "failed to remove the archive of a deleted snapshot");
    }
    Ok(())
}

/// Checks that the caller may use snapshots. Browser tokens may not, because a snapshot contains all files of
/// a customer and outlives its deployment.
///
/// # Errors
/// Returns `forbidden` if the caller is a browser token or lacks the scope.
fn require(caller: &Caller, scope: Scope) -> Result<(), Error> {
    caller.require(scope)?;
    Ok(caller.refuse_browser_token("snapshots")?)
}

async fn find(app: &App, caller: &Caller, snapshot_id: SnapshotId) -> Result<Snapshot, Error> {
    let caller = caller.clone();
    app.store
        .read("get_snapshot", move |tx| Box::pin(async move { caller.snapshot(tx, snapshot_id).await }))
        .await
}

fn require_ready(snapshot: &Snapshot) -> Result<(), ApiError> {
    let message = match (snapshot.status, &snapshot.error) {
        (SnapshotStatus::Ready, _) => return Ok(()),
        (SnapshotStatus::Error, Some(error)) => {
            format!("The snapshot could not be created: {}", error.message)
        }
        _ => "The snapshot is still being created; try again when its status is `ready`.".to_owned(),
    };
    Err(ApiError::new(ErrorCode::Conflict, message))
}

/// Checks that the deployment has a persistent file system. Without one, there is no shared workspace to
/// archive or restore.
///
/// # Errors
/// Returns `validation_error` for `field` if each thread of the deployment has a temporary workspace.
pub(crate) fn require_persistent_filesystem(deployment: &Deployment, field: &str) -> Result<(), ApiError> {
    if deployment.settings.sandbox.persistent_filesystem {
        return Ok(());
    }
    let message = "requires that `sandbox.persistent_filesystem` is `true`, because a temporary workspace has no snapshots";
    Err(ApiError::invalid(vec![FieldError::new(field, message)]))
}

/// Inserts the snapshot of a deployment that is being deleted. A worker creates the archive later.
pub(crate) async fn begin(
    tx: &mut Tx,
    deployment: &Deployment,
    snapshot_id: SnapshotId,
) -> Result<Snapshot, Error> {
    let now = tx.now();
    let snapshot = Snapshot {
        snapshot_id,
        account_id: deployment.account_id,
        deployment_id: deployment.deployment_id,
        customer_id: deployment.customer_id.clone(),
        status: SnapshotStatus::Creating,
        contents: None,
        error: None,
        created_at: now,
        expires_at: now.plus_ms(RETENTION_MS),
    };
    snapshots::insert(tx, &snapshot).await?;
    Ok(snapshot)
}

/// Checks that a deployment to be created for this customer may restore the snapshot.
pub(crate) async fn precheck_restore(
    app: &App,
    caller: &Caller,
    snapshot_id: SnapshotId,
    customer_id: &str,
) -> Result<(), Error> {
    let snapshot = find(app, caller, snapshot_id).await?;
    if snapshot.customer_id == customer_id {
        Ok(require_ready(&snapshot)?)
    } else {
        Err(wrong_customer().into())
    }
}

fn wrong_customer() -> ApiError {
    let message = "belongs to another customer; use a snapshot with the same `customer_id` as the deployment";
    ApiError::invalid(vec![FieldError::new("restore_snapshot", message)])
}

/// Checks that a deployment may restore the snapshot that it names. Succeeds if it names none.
///
/// # Errors
/// Fails if the snapshot is not ready, is not accessible, belongs to another customer or is larger than the
/// quota, or if the deployment has no persistent file system.
pub(crate) async fn check_restore(
    tx: &mut Tx,
    caller: &Caller,
    deployment: &Deployment,
) -> Result<(), Error> {
    let Some(snapshot_id) = deployment.restore_snapshot else { return Ok(()) };
    require_persistent_filesystem(deployment, "restore_snapshot")?;
    let snapshot = caller.snapshot(tx, snapshot_id).await?;
    if snapshot.customer_id != deployment.customer_id {
        return Err(wrong_customer().into());
    }
    require_ready(&snapshot)?;
    let disk_bytes = deployment.settings.sandbox.disk_bytes();
    if let Some(contents) = snapshot.contents.filter(|contents| contents.content_size > disk_bytes) {
        let size = contents.content_size;
        let message =
            format!("contains {size} bytes of files, but `sandbox.disk_mb` allows only {disk_bytes} bytes");
        return Err(ApiError::invalid(vec![FieldError::new("restore_snapshot", message)]).into());
    }
    Ok(())
}

/// Runs blocking I/O on the runtime's blocking thread pool.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
