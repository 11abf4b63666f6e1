//! Access to the files of a workspace. The workspace's sandbox need not be running.

mod access;
mod upload;

use std::fs::File;

use herm_sandbox::workspace::{self, OpenFile, WorkspacePath};
use herm_types::file::{FileEntry, FileListing, FileType, Precondition};
use herm_types::key::Scope;

use crate::{App, Caller, Error};
use access::{WorkspaceDir, authorize, in_workspace, parse};

pub use access::WorkspaceRef;
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

/// Checks that a string is a valid path of a file or directory in a workspace, other than the root. Does not
/// check that the file exists.
///
/// # Errors
/// Returns the reason, as a phrase that can follow the name of a field, for example "must be …".
pub fn check_path(path: &str) -> Result<(), String> {
    let path = WorkspacePath::parse(path).map_err(|error| error.to_string())?;
    if path.is_root() { Err("must be the path of a file, not the workspace root".to_owned()) } else { Ok(()) }
}
