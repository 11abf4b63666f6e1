//! Maps workspace ids to directories. The paths of workspaces are computed only here.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use herm_types::deployment::Deployment;
use herm_types::{DeploymentId, ThreadId};

use crate::workspace::{Error, Workspace, temporary_name};

const THREADS_SUFFIX: &str = ".threads";

/// Identifies a workspace and the sandbox that uses it. Converted to a string, it is also the sandbox's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WorkspaceId {
    /// The workspace of a deployment. All its threads use this workspace if `persistent_filesystem` is set.
    Deployment(DeploymentId),
    /// The workspace of a single thread, used if `persistent_filesystem` is not set.
    Thread(DeploymentId, ThreadId),
}

impl WorkspaceId {
    /// Returns the workspace that the runs of a thread use.
    pub fn of(deployment: &Deployment, thread_id: ThreadId) -> Self {
        if deployment.settings.sandbox.persistent_filesystem {
            Self::Deployment(deployment.deployment_id)
        } else {
            Self::Thread(deployment.deployment_id, thread_id)
        }
    }

    /// Returns the id of the deployment to which the workspace belongs.
    pub fn deployment_id(self) -> DeploymentId {
        match self {
            Self::Deployment(deployment_id) | Self::Thread(deployment_id, _) => deployment_id,
        }
    }
}

impl fmt::Display for WorkspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deployment(deployment_id) => deployment_id.fmt(f),
            Self::Thread(deployment_id, thread_id) => write!(f, "{deployment_id}-{thread_id}"),
        }
    }
}

/// The error for a string that is not a valid workspace id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidWorkspaceId;

impl FromStr for WorkspaceId {
    type Err = InvalidWorkspaceId;

    fn from_str(text: &str) -> Result<Self, InvalidWorkspaceId> {
        let deployment_id = |text: &str| text.parse().map_err(|_| InvalidWorkspaceId);
        match text.split_once('-') {
            None => deployment_id(text).map(Self::Deployment),
            Some((deployment, thread)) => {
                Ok(Self::Thread(deployment_id(deployment)?, thread.parse().map_err(|_| InvalidWorkspaceId)?))
            }
        }
    }
}

/// A handle to the directory that contains all workspaces; cheap to clone. All methods except `dir_of` block the
/// thread.
#[derive(Clone, Debug)]
pub struct Workspaces {
    dir: PathBuf,
}

impl Workspaces {
    /// Creates a handle to the workspaces in `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Returns the path of a workspace's directory. Every deployment has a workspace, even if each of its threads also
    /// has one, because the deployment's skills are stored there.
    pub fn dir_of(&self, workspace: WorkspaceId) -> PathBuf {
        match workspace {
            WorkspaceId::Deployment(deployment_id) => self.dir.join(deployment_id.to_string()),
            WorkspaceId::Thread(deployment_id, thread_id) => {
                self.threads_dir(deployment_id).join(thread_id.to_string())
            }
        }
    }

    fn threads_dir(&self, deployment_id: DeploymentId) -> PathBuf {
        self.dir.join(format!("{deployment_id}{THREADS_SUFFIX}"))
    }

    /// Lists the workspaces of a deployment: those of its threads that exist, and the deployment's own workspace, which
    /// is listed even if it does not exist.
    pub fn list(&self, deployment_id: DeploymentId) -> io::Result<Vec<WorkspaceId>> {
        let names = names(&self.threads_dir(deployment_id))?;
        let threads = names.iter().filter_map(|name| name.parse().ok());
        let threads = threads.map(|thread_id| WorkspaceId::Thread(deployment_id, thread_id));
        Ok(threads.chain([WorkspaceId::Deployment(deployment_id)]).collect())
    }

    /// Lists the deployments that have a directory for their threads' workspaces, even if it is empty.
    pub fn deployments_with_threads(&self) -> io::Result<Vec<DeploymentId>> {
        let names = names(&self.dir)?;
        Ok(names.iter().filter_map(|name| name.strip_suffix(THREADS_SUFFIX)?.parse().ok()).collect())
    }

    /// Renames the directory of a thread's workspace, so that the thread continues with an empty workspace. The old
    /// files remain on disk until [`Self::destroy_set_aside`] deletes them. Does nothing if the workspace does not
    /// exist.
    pub fn set_aside(&self, deployment_id: DeploymentId, thread_id: ThreadId) -> io::Result<()> {
        let dir = self.dir_of(WorkspaceId::Thread(deployment_id, thread_id));
        let aside = self.threads_dir(deployment_id).join(temporary_name().map_err(io::Error::other)?);
        match fs::rename(dir, aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Deletes the thread workspaces of a deployment that were renamed by [`Self::set_aside`], even by a previous
    /// server process.
    pub fn destroy_set_aside(&self, deployment_id: DeploymentId) -> Result<(), Error> {
        let dir = self.threads_dir(deployment_id);
        for name in names(&dir).map_err(Error::Io)? {
            if name.parse::<ThreadId>().is_err() {
                Workspace::destroy(&dir.join(name))?;
            }
        }
        Ok(())
    }

    /// Deletes all workspaces of a deployment: its own and those of its threads. Can be repeated after a failure.
    pub fn destroy(&self, deployment_id: DeploymentId) -> Result<(), Error> {
        Workspace::destroy(&self.threads_dir(deployment_id))?;
        Workspace::destroy(&self.dir_of(WorkspaceId::Deployment(deployment_id)))
    }
}

/// Returns the names of a directory's entries. If the directory does not exist, returns an empty list.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}
