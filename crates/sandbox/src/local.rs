//! Local sandboxes: bubblewrap runs them directly on this machine, with the guest as PID 1. They share the host's
//! kernel.

mod bubblewrap;
mod cgroup;
mod process;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use herm_types::Rng;
use tokio::net::UnixStream;
use tokio::sync::OnceCell;

use crate::engine::{Engine, EngineSandbox};
use crate::sandbox_dir::SandboxDir;
use crate::shared_files::SharedFiles;
use crate::spec::{Error, Spec};
use crate::user;
use bubblewrap::Launch;
use cgroup::{Cgroup, Cgroups};
use process::Process;

/// The sandbox engine `local`. It requires no software other than bubblewrap.
pub(crate) struct Local {
    shared_files: SharedFiles,
    /// The control groups below which each sandbox gets its own groups. `None` if this server cannot create control
    /// groups. Each guest then limits the memory of each process separately.
    cgroups: Option<Cgroups>,
    rng: Arc<dyn Rng>,
    /// A host directory over which the launcher (the process that executes bubblewrap) mounts a temporary file system.
    /// In it, the launcher makes the sandbox's directories available, because the sandbox's user may not be able to
    /// reach their original paths. `None` if sandboxes cannot run as separate users; they then run as the server's
    /// user. Determined on first use.
    staging_dir: OnceCell<Option<PathBuf>>,
}

/// Host directories over which the launcher can mount its temporary file system. The first suitable one is used.
/// Sandboxes do not need the original content of these directories.
const STAGING_DIRS: [&str; 4] = ["/mnt", "/media", "/srv", "/opt"];
/// The user id of the trial sandbox that shows whether sandboxes can run as separate users.
const PROBE_USER_ID: u32 = 1 << 30;

impl Local {
    pub(crate) fn new(shared_files: SharedFiles, rng: Arc<dyn Rng>) -> Self {
        let cgroups = Cgroups::find(&shared_files.instance);
        if let Err(error) = &cgroups {
            tracing::info!(%error, "cannot create control groups for local sandboxes; the memory limit applies to each process, not to the sandbox");
        }
        Self { shared_files, cgroups: cgroups.ok(), rng, staging_dir: OnceCell::new() }
    }

    /// Returns the host directory over which the launcher mounts its temporary file system. Returns `None` if sandboxes
    /// cannot run as separate users on this machine. They then run as the server's user.
    async fn staging_dir(&self, reconnect_timeout: Duration) -> Option<&Path> {
        let probed = self.staging_dir.get_or_init(|| async {
            if !user::is_root() {
                return None;
            }
            let staging_dir = STAGING_DIRS.map(Path::new).into_iter().find(|staging_dir| {
                staging_dir.is_dir() && !self.shared_files.dir().starts_with(staging_dir)
            })?;
            let user = Some((PROBE_USER_ID, staging_dir));
            let launch = Launch {
                name: "herm-sandbox:trial",
                shared_files: &self.shared_files,
                cgroup: None,
                user,
                reconnect_timeout,
            };
            match bubblewrap::check(&launch).await {
                Ok(()) => Some(staging_dir.to_owned()),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot run each local sandbox as its own user; all local sandboxes run as the server's user, root"
                    );
                    None
                }
            }
        });
        probed.await.as_deref()
    }

    fn sandbox(&self, sandbox_dir: &SandboxDir) -> LocalSandbox {
        let cgroup = self.cgroups.as_ref().map(|cgroups| cgroups.cgroup_of(sandbox_dir.sandbox_id()));
        let name = bubblewrap::process_name(&self.shared_files.instance, sandbox_dir.sandbox_id());
        LocalSandbox { process: Arc::default(), name, sandbox_dir: sandbox_dir.clone(), cgroup }
    }
}

#[async_trait]
impl Engine for Local {
    async fn check(&self) -> Result<(), Error> {
        bubblewrap::check(&Launch {
            name: "herm-sandbox:trial",
            shared_files: &self.shared_files,
            cgroup: None,
            user: None,
            reconnect_timeout: Duration::ZERO,
        })
        .await
    }

    /// Always returns true, because local sandboxes use the host's programs instead of an image.
    async fn has_image(&self, _image: Option<&str>) -> Result<bool, Error> {
        Ok(true)
    }

    async fn get_image(&self, _image: Option<&str>) -> Result<(), Error> {
        Ok(())
    }

    async fn has_own_users(&self) -> bool {
        self.staging_dir(Duration::ZERO).await.is_some()
    }

    async fn start(
        &self,
        sandbox_dir: &SandboxDir,
        spec: &Spec,
        reconnect_timeout: Duration,
    ) -> Result<Box<dyn EngineSandbox>, Error> {
        let sandbox = self.sandbox(sandbox_dir);
        if let Some(cgroup) = &sandbox.cgroup {
            cgroup.create(spec.limits)?;
        }
        let user = match self.staging_dir(reconnect_timeout).await {
            Some(staging_dir) => {
                Some((user::assign_own_user(&spec.workspace_dir, self.rng.as_ref())?, staging_dir))
            }
            None => {
                user::assign_server_user(&spec.workspace_dir)?;
                None
            }
        };
        let launch = Launch {
            name: &sandbox.name,
            shared_files: &self.shared_files,
            cgroup: sandbox.cgroup.as_ref(),
            user,
            reconnect_timeout,
        };
        let started = bubblewrap::start(&launch, sandbox_dir, spec).await;
        match started {
            Ok(child) => process::reap(Arc::clone(&sandbox.process), child),
            Err(error) => {
                sandbox.clean_up().await;
                return Err(error);
            }
        }
        Ok(Box::new(sandbox))
    }

    async fn find(&self, sandbox_dir: &SandboxDir) -> Result<Box<dyn EngineSandbox>, Error> {
        Ok(Box::new(self.sandbox(sandbox_dir)))
    }
}

struct LocalSandbox {
    process: Arc<Process>,
    /// The name by which the sandbox appears in the host's process list.
    name: String,
    sandbox_dir: SandboxDir,
    cgroup: Option<Cgroup>,
}

#[async_trait]
impl EngineSandbox for LocalSandbox {
    fn guest_connected(&self, stream: &UnixStream) {
        self.process.set_guest(stream);
    }

    async fn kill(&self) {
        self.process.kill();
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }

    async fn wait_ended(&self) {
        self.process.wait_ended().await;
    }

    async fn may_run(&self) -> bool {
        self.cgroup.as_ref().map_or_else(|| process::exists(&self.name), Cgroup::has_processes)
    }

    async fn clean_up(&self) {
        if let Some(cgroup) = &self.cgroup
            && let Err(error) = cgroup.remove().await
        {
            tracing::warn!(sandbox_id = self.sandbox_dir.sandbox_id(), %error, "failed to remove the sandbox's control group");
        }
    }

    async fn start_failure(&self) -> Error {
        if self.process.has_ended() {
            bubblewrap::start_failure(&self.sandbox_dir)
        } else {
            Error::StartTimeout
        }
    }
}
