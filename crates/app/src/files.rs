//! Files of a workspace, read without starting a sandbox.

use std::fs::File;
use std::path::PathBuf;

use herm_sandbox::workspace::{self, OpenFile, PathError, Workspace, WorkspacePath};
use herm_types::file::{FileEntry, FileListing, FileType};
use herm_types::key::Scope;
use herm_types::{DeploymentId, Error as Refusal, Fault};

use crate::{App, Caller, Error};

/// A directory's entries, by name; `path` is relative to the workspace, and empty for the workspace itself.
pub async fn list(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    path: String,
) -> Result<FileListing, Error> {
    let dir = reach(app, caller, deployment_id).await?;
    in_workspace(dir, path, |workspace, path, text| {
        let entries = workspace.list(&path)?;
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
        Ok(FileListing { path: text.to_owned(), entries: entries.collect() })
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
pub async fn open(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    path: String,
) -> Result<Opened, Error> {
    let dir = reach(app, caller, deployment_id).await?;
    in_workspace(dir, path, |workspace, path, _| {
        let OpenFile { file, size, etag, .. } = workspace.open_read(&path)?;
        Ok(Opened { file, size, etag })
    })
    .await
}

async fn reach(app: &App, caller: &Caller, deployment_id: DeploymentId) -> Result<PathBuf, Error> {
    caller.require(Scope::FilesRead)?;
    let caller = caller.clone();
    app.store
        .read("get_deployment", move |tx| {
            Box::pin(async move { caller.deployment(tx, deployment_id).await.map(|_| ()) })
        })
        .await?;
    Ok(app.workspace_dir(deployment_id))
}

async fn in_workspace<T: Send + 'static>(
    dir: PathBuf,
    text: String,
    work: impl FnOnce(&Workspace, WorkspacePath, &str) -> Result<T, workspace::Error> + Send + 'static,
) -> Result<T, Error> {
    let path = WorkspacePath::parse(&text).map_err(|error| invalid_path(&error))?;
    let shown = text.clone();
    let worked = tokio::task::spawn_blocking(move || {
        let workspace = Workspace::create(&dir)?;
        work(&workspace, path, &text)
    });
    let worked =
        worked.await.map_err(|error| Error::Workspace(workspace::Error::Io(std::io::Error::other(error))))?;
    worked.map_err(|error| refusal(error, &shown))
}

fn invalid_path(error: &PathError) -> Refusal {
    Refusal::invalid(vec![Fault::new("path", error.to_string())])
}

fn refusal(error: workspace::Error, path: &str) -> Error {
    match error {
        workspace::Error::NotFound => Refusal::not_found("file or directory", path).into(),
        workspace::Error::Io(_) => Error::Workspace(error),
        other => Refusal::invalid(vec![Fault::new("path", other.to_string())]).into(),
    }
}
