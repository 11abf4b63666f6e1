//! Authorizes access to the files of a workspace, and runs file operations without blocking the runtime.

use std::path::PathBuf;

use herm_sandbox::WorkspaceId;
use herm_sandbox::workspace::{self, PathError, Workspace, WorkspacePath};
use herm_store::{Tx, threads};
use herm_types::deployment::Deployment;
use herm_types::key::Scope;
use herm_types::{DeploymentId, Error as ApiError, ErrorCode, FieldError, ThreadId};

use crate::{App, Caller, Error};

/// The directory of a workspace, and its quota.
pub(super) struct WorkspaceDir {
    pub(super) dir: PathBuf,
    /// The maximum total size of the workspace's files, in bytes.
    pub(super) disk_bytes: u64,
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
pub(super) async fn authorize(
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

pub(super) fn parse(path: &str) -> Result<WorkspacePath, ApiError> {
    let invalid = |error: PathError| ApiError::invalid(vec![FieldError::new("path", error.to_string())]);
    WorkspacePath::parse(path).map_err(invalid)
}

pub(super) async fn in_workspace<T: Send + 'static>(
    dir: PathBuf,
    path: WorkspacePath,
    work: impl FnOnce(&Workspace, &WorkspacePath) -> Result<T, workspace::Error> + Send + 'static,
) -> Result<T, Error> {
    let shown = path.as_str().to_owned();
    blocking(shown, move || work(&Workspace::create(&dir)?, &path)).await
}

/// Runs blocking I/O on the runtime's blocking thread pool.
pub(super) async fn blocking<T: Send + 'static>(
    path: String,
    work: impl FnOnce() -> Result<T, workspace::Error> + Send + 'static,
) -> Result<T, Error> {
    let result = tokio::task::spawn_blocking(work).await;
    let result =
        result.map_err(|error| Error::Workspace(workspace::Error::Io(std::io::Error::other(error))))?;
    result.map_err(|error| api_error(error, &path))
}

pub(super) fn api_error(error: workspace::Error, path: &str) -> Error {
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
