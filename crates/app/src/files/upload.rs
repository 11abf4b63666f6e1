//! Streaming uploads of files into a workspace. The memory use does not depend on the file's size, and a slow
//! client does not block a thread.

use std::path::PathBuf;

use herm_sandbox::workspace::{self, OnLink, Pending, Reservation, Workspace, WorkspacePath};
use herm_store::{deployments, snapshots};
use herm_types::DeploymentId;
use herm_types::file::{Precondition, WrittenFile};
use herm_types::key::Scope;
use herm_types::snapshot::SnapshotStatus;

use super::access::{WorkspaceDir, WorkspaceRef, api_error, authorize, blocking, parse};
use crate::{App, Caller, Error};

/// The number of bytes that an upload buffers before it writes them to disk.
const BUFFER_BYTES: usize = 256 * 1024;

/// An upload in progress. Dropping it removes everything written so far.
pub struct Upload {
    app: App,
    caller: Caller,
    workspace_ref: WorkspaceRef,
    dir: PathBuf,
    path: WorkspacePath,
    precondition: Precondition,
    pending: Pending,
    reservation: Reservation,
    buffer: Vec<u8>,
    size: u64,
}

/// The result of a completed upload. The file is synced to disk.
#[derive(Clone, Debug)]
pub struct UploadedFile {
    pub file: WrittenFile,
    pub etag: String,
}

impl Upload {
    /// Begins an upload, after all checks that are possible without the content. `announced` is the size of
    /// the content in bytes, if the client declared it.
    pub async fn begin(
        app: &App,
        caller: &Caller,
        workspace_ref: WorkspaceRef,
        path: String,
        precondition: Precondition,
        announced: Option<u64>,
    ) -> Result<Self, Error> {
        app.refuse_while_draining()?;
        let WorkspaceDir { dir, disk_bytes } =
            authorize(app, caller, workspace_ref, Scope::FilesWrite).await?;
        let (path, limit) = (parse(&path)?, app.settings.max_file_bytes);
        let shown = path.as_str().to_owned();
        if path.is_root() {
            return Err(api_error(workspace::Error::IsRoot, &shown));
        }
        if announced.is_some_and(|announced| announced > limit) {
            return Err(api_error(workspace::Error::TooLarge { limit }, &shown));
        }
        let begin = {
            let (dir, path, precondition) = (dir.clone(), path.clone(), precondition.clone());
            let quotas = app.settings.quotas.clone();
            move || {
                let workspace = Workspace::create(&dir)?;
                workspace.check_write(&path, &precondition)?;
                let mut reservation = quotas.begin_write(&dir, disk_bytes, workspace.freed_by_write(&path)?);
                reservation.grow_to(announced.unwrap_or(0))?;
                Ok((workspace.begin_write(&path, limit)?, reservation))
            }
        };
        let (pending, reservation) = blocking(shown, begin).await?;
        let (app, caller, buffer) = (app.clone(), caller.clone(), Vec::new());
        Ok(Self {
            app,
            caller,
            workspace_ref,
            dir,
            path,
            precondition,
            pending,
            reservation,
            buffer,
            size: 0,
        })
    }

    /// Appends bytes to the file. Fails if the file exceeds the maximum size or the workspace exceeds its
    /// quota.
    pub async fn write(mut self, bytes: &[u8]) -> Result<Self, Error> {
        self.size = self.size.saturating_add(bytes.len() as u64);
        let limit = self.app.settings.max_file_bytes;
        if self.size > limit {
            return Err(api_error(workspace::Error::TooLarge { limit }, self.path.as_str()));
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < BUFFER_BYTES { Ok(self) } else { self.flush().await }
    }

    async fn flush(self) -> Result<Self, Error> {
        let shown = self.path.as_str().to_owned();
        let flush = move || {
            let mut upload = self;
            upload.reservation.grow_to(upload.size)?;
            upload.pending.write(&upload.buffer)?;
            upload.buffer.clear();
            Ok(upload)
        };
        blocking(shown, flush).await
    }

    /// Writes the buffered bytes and moves the file to its path. Fails if the client's precondition
    /// (`If-Match` or `If-None-Match`) is not met.
    pub async fn finish(self) -> Result<UploadedFile, Error> {
        let upload = self.flush().await?;
        let Self { app, caller, workspace_ref, dir, path, precondition, pending, reservation, .. } = upload;
        let shown = path.as_str().to_owned();
        let written = blocking(shown.clone(), move || pending.commit(&precondition, OnLink::Refuse)).await?;
        reservation.commit();
        if let Err(error) = authorize(&app, &caller, workspace_ref, Scope::FilesWrite).await {
            // The caller lost access during the upload. If the reason is that the deployment was deleted, its
            // files may already have been deleted too, and nothing else would remove the new file. Therefore
            // delete the whole workspace, or only the new file if a snapshot of the workspace is still to be
            // created.
            if matches!(&error, Error::Rejected(_)) {
                match deployment_state(&app, workspace_ref.deployment_id).await? {
                    DeploymentState::Exists => {}
                    DeploymentState::AwaitingSnapshot => {
                        let remove = move || Workspace::create(&dir)?.remove(&path, &Precondition::default());
                        blocking(shown, remove).await?;
                    }
                    DeploymentState::Deleted => {
                        let workspaces = app.settings.workspaces.clone();
                        blocking(shown, move || workspaces.destroy(workspace_ref.deployment_id)).await?;
                    }
                }
            }
            return Err(error);
        }
        let file = WrittenFile { path: shown, size: written.size, modified_at: written.modified_at };
        Ok(UploadedFile { file, etag: written.etag })
    }
}

/// The state of a deployment after the caller has lost access to it during an upload. It determines which
/// files are removed.
enum DeploymentState {
    Exists,
    /// The deployment is deleted, but its snapshot still needs the files.
    AwaitingSnapshot,
    Deleted,
}

async fn deployment_state(app: &App, deployment_id: DeploymentId) -> Result<DeploymentState, Error> {
    app.store
        .read("find_deployment", move |tx| {
            Box::pin(async move {
                if deployments::find(tx, deployment_id).await?.is_some() {
                    return Ok(DeploymentState::Exists);
                }
                let snapshot = snapshots::find_of_deployment(tx, deployment_id).await?;
                let is_awaited = snapshot.is_some_and(|snapshot| snapshot.status != SnapshotStatus::Ready);
                Ok(if is_awaited { DeploymentState::AwaitingSnapshot } else { DeploymentState::Deleted })
            })
        })
        .await
}
