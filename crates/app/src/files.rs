//! Files of a workspace, reached without starting a sandbox.

mod upload;

use std::fs::File;
use std::path::PathBuf;

use herm_sandbox::WorkspaceId;
use herm_sandbox::workspace::{self, OpenFile, PathError, Workspace, WorkspacePath};
use herm_store::{Tx, threads};
use herm_types::deployment::Deployment;
use herm_types::file::{FileEntry, FileListing, FileType, Precondition};
use herm_types::key::Scope;
use herm_types::{DeploymentId, Error as Refusal, ErrorCode, Fault, ThreadId};

use crate::{App, Caller, Error};
pub use upload::{Upload, Uploaded};

/// A directory's entries, by name; `path` is relative to the workspace, and empty for the workspace itself.
pub async fn list(app: &App, caller: &Caller, whose: Whose, path: String) -> Result<FileListing, Error> {
    let Place { dir, .. } = reach(app, caller, whose, Scope::FilesRead).await?;
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

/// A regular file, opened: what is read from it is what was there at that moment, whatever replaces it.
pub struct Opened {
    pub file: File,
    pub size: u64,
    /// Changes whenever the file's content may have.
    pub etag: String,
}

/// Opens a file for reading.
pub async fn open(app: &App, caller: &Caller, whose: Whose, path: String) -> Result<Opened, Error> {
    let Place { dir, .. } = reach(app, caller, whose, Scope::FilesRead).await?;
    in_workspace(dir, parse(&path)?, |workspace, path| {
        let OpenFile { file, size, etag, .. } = workspace.open_read(path)?;
        Ok(Opened { file, size, etag })
    })
    .await
}

/// Removes a file, or a directory with all that is in it; its path as it is understood.
pub async fn delete(
    app: &App,
    caller: &Caller,
    whose: Whose,
    path: String,
    precondition: Precondition,
) -> Result<String, Error> {
    app.refuse_while_draining()?;
    let Place { dir, .. } = reach(app, caller, whose, Scope::FilesWrite).await?;
    let removed = in_workspace(dir.clone(), parse(&path)?, move |workspace, path| {
        workspace.remove(path, &precondition)?;
        Ok(path.as_str().to_owned())
    })
    .await?;
    app.settings.quotas.forget(&dir);
    Ok(removed)
}

/// A workspace.
struct Place {
    dir: PathBuf,
    /// Bytes that it may hold.
    disk_bytes: u64,
}

/// Which workspace is meant, of a deployment.
#[derive(Clone, Copy, Debug)]
pub struct Whose {
    pub deployment_id: DeploymentId,
    /// Of a deployment without a persistent file system: the thread; `None`: the default one.
    pub thread_id: Option<ThreadId>,
}

/// Where the files are, if the caller may do what `scope` allows to them.
async fn reach(app: &App, caller: &Caller, whose: Whose, scope: Scope) -> Result<Place, Error> {
    caller.require(scope)?;
    let (caller, writes) = (caller.clone(), scope == Scope::FilesWrite);
    let (deployment, workspace) = app
        .store
        .read("get_workspace", move |tx| Box::pin(async move { find(tx, &caller, whose).await }))
        .await?;
    if let (WorkspaceId::Thread(_, thread_id), true) = (workspace, writes) {
        // Who writes to a thread's files keeps them.
        app.store
            .transaction("note_activity", move |tx| Box::pin(threads::note_activity(tx, thread_id)))
            .await?;
    }
    let disk_bytes = deployment.settings.sandbox.disk_bytes();
    Ok(Place { dir: app.settings.workspaces.dir_of(workspace), disk_bytes })
}

async fn find(tx: &mut Tx, caller: &Caller, whose: Whose) -> Result<(Deployment, WorkspaceId), Error> {
    let deployment = caller.deployment(tx, whose.deployment_id).await?;
    let Some(thread_id) = whose.thread_id else {
        let workspace = WorkspaceId::of(&deployment, deployment.default_thread_id);
        return Ok((deployment, workspace));
    };
    let workspace = WorkspaceId::of(&deployment, thread_id);
    if let WorkspaceId::Deployment(_) = workspace {
        let message =
            "is not a known query parameter: the file system is persistent, and all threads share it";
        return Err(Refusal::invalid(vec![Fault::new("thread_id", message)]).into());
    }
    if threads::find(tx, whose.deployment_id, thread_id).await?.is_none() {
        return Err(Refusal::not_found("thread", &thread_id.to_string()).into());
    }
    Ok((deployment, workspace))
}

fn parse(path: &str) -> Result<WorkspacePath, Refusal> {
    let refused = |error: PathError| Refusal::invalid(vec![Fault::new("path", error.to_string())]);
    WorkspacePath::parse(path).map_err(refused)
}

/// Whether a text is the path of something in a workspace, be it there or not.
///
/// # Errors
/// What is wrong with it.
pub fn valid_path(path: &str) -> Result<(), String> {
    let path = WorkspacePath::parse(path).map_err(|error| error.to_string())?;
    if path.is_root() { Err("this is the workspace itself, not a file in it".to_owned()) } else { Ok(()) }
}

async fn in_workspace<T: Send + 'static>(
    dir: PathBuf,
    path: WorkspacePath,
    work: impl FnOnce(&Workspace, &WorkspacePath) -> Result<T, workspace::Error> + Send + 'static,
) -> Result<T, Error> {
    let shown = path.as_str().to_owned();
    blocking(shown, move || work(&Workspace::create(&dir)?, &path)).await
}

/// Does what blocks where it may.
async fn blocking<T: Send + 'static>(
    path: String,
    work: impl FnOnce() -> Result<T, workspace::Error> + Send + 'static,
) -> Result<T, Error> {
    let worked = tokio::task::spawn_blocking(work).await;
    let worked =
        worked.map_err(|error| Error::Workspace(workspace::Error::Io(std::io::Error::other(error))))?;
    worked.map_err(|error| refusal(error, &path))
}

fn refusal(error: workspace::Error, path: &str) -> Error {
    let message = format!("{path:?}: {error}.");
    match error {
        workspace::Error::NotFound => Refusal::not_found("file or directory", path).into(),
        workspace::Error::TooLarge { .. }
        | workspace::Error::NoSpace
        | workspace::Error::OverQuota { .. }
        | workspace::Error::TooMuch => Error::TooLarge(message),
        workspace::Error::Precondition | workspace::Error::Busy => {
            Refusal::new(ErrorCode::Conflict, message).into()
        }
        workspace::Error::Io(_) => Error::Workspace(error),
        other => Refusal::invalid(vec![Fault::new("path", other.to_string())]).into(),
    }
}
