//! Which workspaces there are, and where each lies: the one place that says so.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use herm_types::deployment::Deployment;
use herm_types::{DeploymentId, ThreadId};

use crate::workspace::{Error, Workspace, temporary_name};

const THREADS_SUFFIX: &str = ".threads";

/// A workspace, and the sandbox that goes with it, which has its text for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WorkspaceId {
    /// That of all of a deployment's threads.
    Deployment(DeploymentId),
    /// A thread's own.
    Thread(DeploymentId, ThreadId),
}

impl WorkspaceId {
    /// The workspace in which a thread's runs work.
    pub fn of(deployment: &Deployment, thread_id: ThreadId) -> Self {
        if deployment.settings.sandbox.persistent_filesystem {
            Self::Deployment(deployment.deployment_id)
        } else {
            Self::Thread(deployment.deployment_id, thread_id)
        }
    }

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

/// The text is not a workspace's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAWorkspace;

impl FromStr for WorkspaceId {
    type Err = NotAWorkspace;

    fn from_str(text: &str) -> Result<Self, NotAWorkspace> {
        let deployment_id = |text: &str| text.parse().map_err(|_| NotAWorkspace);
        match text.split_once('-') {
            None => deployment_id(text).map(Self::Deployment),
            Some((deployment, thread)) => {
                Ok(Self::Thread(deployment_id(deployment)?, thread.parse().map_err(|_| NotAWorkspace)?))
            }
        }
    }
}

/// The directory of all workspaces; cheap to clone. All methods but `dir_of` block.
#[derive(Clone, Debug)]
pub struct Workspaces {
    dir: PathBuf,
}

impl Workspaces {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Where a workspace lies. A deployment's own is there for its skills too where each thread has one for itself.
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

    /// All workspaces of a deployment that are there.
    pub fn of_deployment(&self, deployment_id: DeploymentId) -> io::Result<Vec<WorkspaceId>> {
        let names = names(&self.threads_dir(deployment_id))?;
        let threads = names.iter().filter_map(|name| name.parse().ok());
        let threads = threads.map(|thread_id| WorkspaceId::Thread(deployment_id, thread_id));
        Ok(threads.chain([WorkspaceId::Deployment(deployment_id)]).collect())
    }

    /// The deployments whose threads have, or had, workspaces of their own.
    pub fn with_threads(&self) -> io::Result<Vec<DeploymentId>> {
        let names = names(&self.dir)?;
        Ok(names.iter().filter_map(|name| name.strip_suffix(THREADS_SUFFIX)?.parse().ok()).collect())
    }

    /// Takes a thread's workspace away, at once: what is asked for from then on is a new one. Its files are still there,
    /// until [`Self::destroy_set_aside`].
    pub fn set_aside(&self, deployment_id: DeploymentId, thread_id: ThreadId) -> io::Result<()> {
        let dir = self.dir_of(WorkspaceId::Thread(deployment_id, thread_id));
        let aside = self.threads_dir(deployment_id).join(temporary_name().map_err(io::Error::other)?);
        match fs::rename(dir, aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Destroys what was set aside, also by a server that is gone.
    pub fn destroy_set_aside(&self, deployment_id: DeploymentId) -> Result<(), Error> {
        let dir = self.threads_dir(deployment_id);
        for name in names(&dir).map_err(Error::Io)? {
            if name.parse::<ThreadId>().is_err() {
                Workspace::destroy(&dir.join(name))?;
            }
        }
        Ok(())
    }

    /// Destroys all workspaces of a deployment. May be done again after it broke off.
    pub fn destroy(&self, deployment_id: DeploymentId) -> Result<(), Error> {
        Workspace::destroy(&self.threads_dir(deployment_id))?;
        Workspace::destroy(&self.dir_of(WorkspaceId::Deployment(deployment_id)))
    }
}

/// The names in a directory of the server's own; none if it is not there.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}
