//! Access to the files of a workspace. The workspace's sandbox need not be running.

mod upload;

use std::fs::File;
use std::path::PathBuf;

use herm_sandbox::WorkspaceId;
use herm_sandbox::workspace::{self, OpenFile, PathError, Workspace, WorkspacePath};
use herm_store::{Tx, threads};
use herm_types::deployment::Deployment;
use herm_types::file::{FileEntry, FileListing, FileType, Precondition};
use herm_types::key::Scope;
use herm_types::{DeploymentId, Error as ApiError, ErrorCode, FieldError, ThreadId};

use crate::{App, Caller, Error};
pub use upload::{Upload, UploadedFile};

/// Lists a directory, sorted by name. `path` is relative to the workspace root and empty for the root itself.
pub async fn list(
    app: &App,
    caller: &Caller,
    workspace_ref: WorkspaceRef,
    path: String,
) -> Result<FileListing, Error> {
    let WorkspaceDir { dir, .. } = authorize(app, caller, workspace_ref, Scope::FilesRead).await?;
    in_workspace(dir, parse(&path)?, |workspace, path| {
        let entries = workspace.list(path)?;
        let entries = entries.into_iter().map(|entry| FileEntry {
            name: entry.name,
            kind: match entry.kind {
                workspace::Kind::File => FileType::File,
                workspace::Kind::Directory => FileType::Directory,
                workspace::Kind::Symlink => FileType::Symlink,
            },
            size: entry.size,
            modified_at: entry.modified_at,
        });
        Ok(FileListing { path: path.as_str().to_owned(), entries: entries.collect() })
    })
    .await
}

/// An open regular file. Reads return the content at the time of opening, even if the file is replaced.
pub struct OpenedFile {
    pub file: File,
    pub size: u64,
    /// The entity tag, which changes whenever the content may have changed.
    pub etag: String,
}

/// Opens a file of a workspace for reading.
pub async fn open(
    app: &App,
    caller: &Caller,
    workspace_ref: WorkspaceRef,
    path: String,
) -> Result<OpenedFile, Error> {
    let WorkspaceDir { dir, .. } = authorize(app, caller, workspace_ref, Scope::FilesRead).await?;
    in_workspace(dir, parse(&path)?, |workspace, path| {
        let OpenFile { file, size, etag, .. } = workspace.open_read(path)?;
        Ok(OpenedFile { file, size, etag })
    })
    .await
}

/// Deletes a file, or a directory with its contents. Returns the normalized path of the deleted entry.
pub async fn delete(
    app: &App,
    caller: &Caller,
    workspace_ref: WorkspaceRef,
    path: String,
    precondition: Precondition,
) -> Result<String, Error> {
    app.refuse_while_draining()?;
    let WorkspaceDir { dir, .. } = authorize(app, caller, workspace_ref, Scope::FilesWrite).await?;
    let removed = in_workspace(dir.clone(), parse(&path)?, move |workspace, path| {
        workspace.remove(path, &precondition)?;
        Ok(path.as_str().to_owned())
    })
    .await?;
    app.settings.quotas.invalidate(&dir);
    Ok(removed)
}

/// The directory of a workspace, and its quota.
struct WorkspaceDir {
    dir: PathBuf,
    /// The maximum total size of the workspace's files, in bytes.
    disk_bytes: u64,
}

/// Identifies a workspace by its deployment, and also by its thread if each thread has its own workspace.
#[derive(Clone, Copy, Debug)]
pub struct WorkspaceRef {
    pub deployment_id: DeploymentId,
    /// The thread whose workspace is selected, if the deployment has a workspace for each thread. `None`
    /// selects the workspace of the default thread. Must be `None` if all threads share one workspace.
    pub thread_id: Option<ThreadId>,
}

/// Checks that the caller has the scope `scope` and may access the workspace. Returns the workspace's
/// directory and quota.
async fn authorize(
    app: &App,
    caller: &Caller,
    workspace_ref: WorkspaceRef,
    scope: Scope,
) -> Result<WorkspaceDir, Error> {
    caller.require(scope)?;
    let (caller, writes) = (caller.clone(), scope == Scope::FilesWrite);
    let (deployment, workspace) = app
        .store
        .read("get_workspace", move |tx| Box::pin(async move { find(tx, &caller, workspace_ref).await }))
        .await?;
    if let (WorkspaceId::Thread(_, thread_id), true) = (workspace, writes) {
        // A write counts as activity in the thread. Retention deletes the workspaces of threads without
        // activity.
        app.store
            .transaction("note_activity", move |tx| Box::pin(threads::record_activity(tx, thread_id)))
            .await?;
    }
    let disk_bytes = deployment.settings.sandbox.disk_bytes();
    Ok(WorkspaceDir { dir: app.settings.workspaces.dir_of(workspace), disk_bytes })
}

async fn find(
    tx: &mut Tx,
    caller: &Caller,
    workspace_ref: WorkspaceRef,
) -> Result<(Deployment, WorkspaceId), Error> {
    let deployment = caller.deployment(tx, workspace_ref.deployment_id).await?;
    let Some(thread_id) = workspace_ref.thread_id else {
        let workspace = WorkspaceId::of(&deployment, deployment.default_thread_id);
        return Ok((deployment, workspace));
    };
    let workspace = WorkspaceId::of(&deployment, thread_id);
    if let WorkspaceId::Deployment(_) = workspace {
        let message = "must be omitted, because all threads of this deployment share one workspace";
        return Err(ApiError::invalid(vec![FieldError::new("thread_id", message)]).into());
    }
    if threads::find(tx, workspace_ref.deployment_id, thread_id).await?.is_none() {
        return Err(ApiError::not_found("thread", &thread_id.to_string()).into());
    }
    Ok((deployment, workspace))
}

fn parse(path: &str) -> Result<WorkspacePath, ApiError> {
    let invalid = |error: PathError| ApiError::invalid(vec![FieldError::new("path", error.to_string())]);
    WorkspacePath::parse(path).map_err(invalid)
}

/// Checks that a string is a valid path of a file or directory in a workspace, other than the root. Does not
/// check that the file exists.
///
/// # Errors
/// Returns the reason, as a phrase that can follow the name of a field, for example "must be …".
pub fn check_path(path: &str) -> Result<(), String> {
    let path = WorkspacePath::parse(path).map_err(|error| error.to_string())?;
    if path.is_root() { Err("must be the path of a file, not the workspace root".to_owned()) } else { Ok(()) }
}

async fn in_workspace<T: Send + 'static>(
    dir: PathBuf,
    path: WorkspacePath,
    work: impl FnOnce(&Workspace, &WorkspacePath) -> Result<T, workspace::Error> + Send + 'static,
) -> Result<T, Error> {
    let shown = path.as_str().to_owned();
    blocking(shown, move || work(&Workspace::create(&dir)?, &path)).await
}

/// Runs blocking I/O on the runtime's blocking thread pool.
async fn blocking<T: Send + 'static>(
    path: String,
    work: impl FnOnce() -> Result<T, workspace::Error> + Send + 'static,
) -> Result<T, Error> {
    let result = tokio::task::spawn_blocking(work).await;
    let result =
        result.map_err(|error| Error::Workspace(workspace::Error::Io(std::io::Error::other(error))))?;
    result.map_err(|error| api_error(error, &path))
}

fn api_error(error: workspace::Error, path: &str) -> Error {
    let message = format!("{path:?}: {error}.");
    match error {
        workspace::Error::NotFound => ApiError::not_found("file or directory", path).into(),
        workspace::Error::TooLarge { .. }
        | workspace::Error::NoSpace
        | workspace::Error::OverQuota { .. }
        | workspace::Error::TooManyToMeasure => Error::TooLarge(message),
        workspace::Error::Precondition | workspace::Error::Busy => {
            ApiError::new(ErrorCode::Conflict, message).into()
        }
        workspace::Error::Io(_) => Error::Workspace(error),
        other => ApiError::invalid(vec![FieldError::new("path", other.to_string())]).into(),
    }
}
