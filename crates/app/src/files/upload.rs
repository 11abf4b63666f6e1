//! A file on its way into a workspace, piece by piece: however large it is and however slowly it comes, little of it is
//! in memory and no thread waits for it.

use std::path::PathBuf;

use herm_sandbox::workspace::{self, OnLink, Pending, Room, Workspace, WorkspacePath};
use herm_store::{deployments, snapshots};
use herm_types::DeploymentId;
use herm_types::file::{Precondition, WrittenFile};
use herm_types::key::Scope;
use herm_types::snapshot::SnapshotStatus;

use super::{Place, Whose, blocking, parse, reach, refusal};
use crate::{App, Caller, Error};

/// Bytes that are gathered before they are written.
const GATHERED_BYTES: usize = 256 * 1024;

/// A file that is not in its place yet. Dropped, nothing of it is left.
pub struct Upload {
    app: App,
    caller: Caller,
    whose: Whose,
    dir: PathBuf,
    path: WorkspacePath,
    precondition: Precondition,
    pending: Pending,
    room: Room,
    gathered: Vec<u8>,
    size: u64,
}

/// A file that is in its place, and on the disk.
#[derive(Clone, Debug)]
pub struct Uploaded {
    pub file: WrittenFile,
    pub etag: String,
}

impl Upload {
    /// Begins to write a file. What can be refused before its bytes are there is refused here: `announced` is how many
    /// there will be, if that is known.
    pub async fn begin(
        app: &App,
        caller: &Caller,
        whose: Whose,
        path: String,
        precondition: Precondition,
        announced: Option<u64>,
    ) -> Result<Self, Error> {
        app.refuse_while_draining()?;
        let Place { dir, disk_bytes } = reach(app, caller, whose, Scope::FilesWrite).await?;
        let (path, limit) = (parse(&path)?, app.settings.max_file_bytes);
        let shown = path.as_str().to_owned();
        if path.is_root() {
            return Err(refusal(workspace::Error::IsRoot, &shown));
        }
        if announced.is_some_and(|announced| announced > limit) {
            return Err(refusal(workspace::Error::TooLarge { limit }, &shown));
        }
        let begin = {
            let (dir, path, precondition) = (dir.clone(), path.clone(), precondition.clone());
            let quotas = app.settings.quotas.clone();
            move || {
                let workspace = Workspace::create(&dir)?;
                workspace.check_write(&path, &precondition)?;
                let mut room = quotas.enter(&dir, disk_bytes, workspace.freed_by_write(&path)?);
                room.take(announced.unwrap_or(0))?;
                Ok((workspace.begin_write(&path, limit)?, room))
            }
        };
        let (pending, room) = blocking(shown, begin).await?;
        let (app, caller, gathered) = (app.clone(), caller.clone(), Vec::new());
        Ok(Self { app, caller, whose, dir, path, precondition, pending, room, gathered, size: 0 })
    }

    /// Adds bytes at the end.
    pub async fn write(mut self, bytes: &[u8]) -> Result<Self, Error> {
        self.size = self.size.saturating_add(bytes.len() as u64);
        let limit = self.app.settings.max_file_bytes;
        if self.size > limit {
            return Err(refusal(workspace::Error::TooLarge { limit }, self.path.as_str()));
        }
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() < GATHERED_BYTES { Ok(self) } else { self.flush().await }
    }

    async fn flush(self) -> Result<Self, Error> {
        let shown = self.path.as_str().to_owned();
        let flush = move || {
            let mut upload = self;
            upload.room.take(upload.size)?;
            upload.pending.write(&upload.gathered)?;
            upload.gathered.clear();
            Ok(upload)
        };
        blocking(shown, flush).await
    }

    /// Puts the file into its place, if the precondition holds there.
    pub async fn finish(self) -> Result<Uploaded, Error> {
        let upload = self.flush().await?;
        let Self { app, caller, whose, dir, path, precondition, pending, room, .. } = upload;
        let shown = path.as_str().to_owned();
        let written = blocking(shown.clone(), move || pending.commit(&precondition, OnLink::Refuse)).await?;
        room.fill();
        if let Err(error) = reach(&app, &caller, whose, Scope::FilesWrite).await {
            // The deployment may have been torn down before the file was in its place: then nobody else removes it. Where
            // its files are still to be kept, it is torn down later, and the others are not ours to remove.
            if matches!(&error, Error::Refused(_)) {
                match left_of(&app, whose.deployment_id).await? {
                    Left::Everything => {}
                    Left::Files => {
                        let remove = move || Workspace::create(&dir)?.remove(&path, &Precondition::default());
                        blocking(shown, remove).await?;
                    }
                    Left::Nothing => {
                        let workspaces = app.settings.workspaces.clone();
                        blocking(shown, move || workspaces.destroy(whose.deployment_id)).await?;
                    }
                }
            }
            return Err(error);
        }
        let file = WrittenFile { path: shown, size: written.size, modified_at: written.modified_at };
        Ok(Uploaded { file, etag: written.etag })
    }
}

/// What there is of a deployment.
enum Left {
    Everything,
    /// It is deleted, and its files are to be kept and are not yet.
    Files,
    Nothing,
}

async fn left_of(app: &App, deployment_id: DeploymentId) -> Result<Left, Error> {
    app.store
        .read("find_deployment", move |tx| {
            Box::pin(async move {
                if deployments::find(tx, deployment_id).await?.is_some() {
                    return Ok(Left::Everything);
                }
                let kept = snapshots::find_of_deployment(tx, deployment_id).await?;
                let is_wanted = kept.is_some_and(|snapshot| snapshot.status != SnapshotStatus::Ready);
                Ok(if is_wanted { Left::Files } else { Left::Nothing })
            })
        })
        .await
}
