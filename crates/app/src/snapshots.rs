//! Snapshots: what is kept of a deployment's files when it is deleted, and what a new one can begin with.

use std::io;

use herm_store::{Tx, snapshots};
use herm_types::deployment::Deployment;
use herm_types::key::Scope;
use herm_types::paging::{Page, PageRequest};
use herm_types::snapshot::{KEPT_MS, Snapshot, SnapshotStatus};
use herm_types::{Error as Refusal, ErrorCode, Fault, SnapshotId};

use crate::files::Opened;
use crate::{App, Caller, Error};

/// Which snapshots are listed; what is `None` does not filter.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    pub customer_id: Option<String>,
    pub status: Option<SnapshotStatus>,
}

/// A page of the snapshots within the caller's reach, newest first.
pub async fn list(
    app: &App,
    caller: &Caller,
    filter: ListFilter,
    page: PageRequest,
) -> Result<Page<Snapshot>, Error> {
    require(caller, Scope::DeploymentsRead)?;
    let (account_id, limits, limit) = (caller.account_id(), caller.key().clone(), page.limit);
    // A key that is limited to one customer sees nothing of another, whatever it filters by.
    if let (Some(limit), Some(asked)) = (&limits.customer_id, &filter.customer_id)
        && limit != asked
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

/// Opens a snapshot's archive: it can be read to its end also if it is erased meanwhile.
///
/// # Errors
/// `conflict`: it is not ready.
pub async fn open(app: &App, caller: &Caller, snapshot_id: SnapshotId) -> Result<Opened, Error> {
    require(caller, Scope::DeploymentsRead)?;
    refuse_unready(&find(app, caller, snapshot_id).await?)?;
    let snapshots = app.settings.snapshots.clone();
    let opened = blocking(move || {
        let file = snapshots.open(snapshot_id)?;
        let size = file.metadata()?.len();
        Ok(Opened { file, size, etag: format!("{snapshot_id}-{size:x}") })
    });
    match opened.await {
        // It was erased since its row was read.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            find(app, caller, snapshot_id).await?;
            Err(Error::Snapshot(error))
        }
        opened => opened.map_err(Error::Snapshot),
    }
}

/// Erases a snapshot for good, in whatever state it is.
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
                Err(Error::from(Refusal::not_found("snapshot", &snapshot_id.to_string())))
            })
        })
        .await?;
    let snapshots = app.settings.snapshots.clone();
    if let Err(error) = blocking(move || snapshots.remove(snapshot_id)).await {
        // The row is gone, so the next sweep removes the file as one that is nobody's.
        tracing::warn!(%snapshot_id, error = &error as &dyn std::error::Error, "a snapshot's file is left");
    }
    Ok(())
}

/// # Errors
/// `forbidden`: the key lacks the scope, or is a browser token: snapshots are its customer's whole files, and outlive it.
fn require(caller: &Caller, scope: Scope) -> Result<(), Error> {
    caller.require(scope)?;
    Ok(caller.refuse_token("snapshots")?)
}

async fn find(app: &App, caller: &Caller, snapshot_id: SnapshotId) -> Result<Snapshot, Error> {
    let caller = caller.clone();
    app.store
        .read("get_snapshot", move |tx| Box::pin(async move { caller.snapshot(tx, snapshot_id).await }))
        .await
}

fn refuse_unready(snapshot: &Snapshot) -> Result<(), Refusal> {
    let message = match (snapshot.status, &snapshot.error) {
        (SnapshotStatus::Ready, _) => return Ok(()),
        (SnapshotStatus::Error, Some(error)) => format!("The snapshot is not there: {}", error.message),
        _ => "The snapshot is still being made; try again when its status is ready.".to_owned(),
    };
    Err(Refusal::new(ErrorCode::Conflict, message))
}

/// # Errors
/// `validation_error`: what its threads have are workspaces of their own, each for a while.
pub(crate) fn refuse_without_files(deployment: &Deployment, field: &str) -> Result<(), Refusal> {
    if deployment.settings.sandbox.persistent_filesystem {
        return Ok(());
    }
    let message =
        "belongs to a deployment with sandbox.persistent_filesystem: this one's files are its threads' own";
    Err(Refusal::invalid(vec![Fault::new(field, message)]))
}

/// Begins the snapshot of a deployment that is being deleted.
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
        expires_at: now.plus_ms(KEPT_MS),
    };
    snapshots::insert(tx, &snapshot).await?;
    Ok(snapshot)
}

/// Whether a customer's new deployment may begin with a snapshot.
pub(crate) async fn check_restore(
    app: &App,
    caller: &Caller,
    snapshot_id: SnapshotId,
    customer_id: &str,
) -> Result<(), Error> {
    let snapshot = find(app, caller, snapshot_id).await?;
    if snapshot.customer_id == customer_id {
        Ok(refuse_unready(&snapshot)?)
    } else {
        Err(of_another().into())
    }
}

fn of_another() -> Refusal {
    let message = "is of another customer; name one of the deployment's own customer_id";
    Refusal::invalid(vec![Fault::new("restore_snapshot", message)])
}

/// Whether a deployment may begin with the snapshot that it is to begin with, if there is one.
///
/// # Errors
/// It may not, for what the snapshot is, or the deployment.
pub(crate) async fn refuse_restore(
    tx: &mut Tx,
    caller: &Caller,
    deployment: &Deployment,
) -> Result<(), Error> {
    let Some(snapshot_id) = deployment.restore_snapshot else { return Ok(()) };
    refuse_without_files(deployment, "restore_snapshot")?;
    let snapshot = caller.snapshot(tx, snapshot_id).await?;
    if snapshot.customer_id != deployment.customer_id {
        return Err(of_another().into());
    }
    refuse_unready(&snapshot)?;
    let disk_bytes = deployment.settings.sandbox.disk_bytes();
    if let Some(contents) = snapshot.contents.filter(|contents| contents.content_size > disk_bytes) {
        let size = contents.content_size;
        let message = format!("holds {size} bytes, more than the {disk_bytes} that sandbox.disk_mb allows");
        return Err(Refusal::invalid(vec![Fault::new("restore_snapshot", message)]).into());
    }
    Ok(())
}

/// Does what blocks where it may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
