//! Starts sandboxes on demand, counts the tasks that use each sandbox, and stops a sandbox that no task has used for
//! its idle timeout.

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use herm_sandbox::{Error, Exec, Limits, Outcome, RECONNECT_TIMEOUT, Sandboxes, Spec, WorkspaceId};
use herm_types::sandbox::SandboxSettings;
use serde_json::Number;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::disk_quota;

/// The default idle timeout: a sandbox that has not been used for this time is stopped. The next command starts it
/// again.
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// The delay after the server's start before the sandboxes of previous server processes are cleaned up. A sandbox ends
/// by itself if no server connects to it within [`RECONNECT_TIMEOUT`], so by then the unused sandboxes have ended.
const CLEANUP_DELAY: Duration = RECONNECT_TIMEOUT.saturating_mul(2);
/// The interval between two checks for idle sandboxes.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The number of bytes in a MiB, the unit of the memory and disk limits of deployments.
pub(crate) const MIB: u64 = 1024 * 1024;

struct SandboxUse {
    users: usize,
    since: Instant,
    /// The sandbox is stopped if no task has used it for this time.
    idle_timeout: Duration,
}

/// The workspace and settings with which a sandbox is started.
#[derive(Clone, Debug)]
pub(crate) struct SandboxConfig {
    pub(crate) workspace: WorkspaceId,
    pub(crate) workspace_dir: PathBuf,
    pub(crate) settings: SandboxSettings,
}

/// The result of a command that was executed in a sandbox.
pub(crate) struct ExecResult {
    pub(crate) outcome: Outcome,
    /// True if the command was stopped because the workspace exceeded its disk quota.
    pub(crate) exceeded_disk_quota: bool,
}

impl SandboxConfig {
    /// Returns the memory limit of the sandbox in bytes. All processes of the sandbox share it.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.settings.memory_mb.map_or(Limits::default().memory_bytes, |mb| mb.saturating_mul(MIB))
    }

    fn spec(&self) -> Spec {
        let defaults = Limits::default();
        let cpu = self.settings.cpu.as_ref().and_then(Number::as_f64);
        Spec {
            sandbox_id: self.workspace.to_string(),
            engine: self.settings.engine.unwrap_or(self.settings.kind),
            image: self.settings.image.clone(),
            workspace_dir: self.workspace_dir.clone(),
            env: Vec::new(),
            limits: Limits {
                cpu_millis: cpu.map_or(defaults.cpu_millis, millicores),
                memory_bytes: self.memory_bytes(),
                processes: defaults.processes,
            },
        }
    }

    fn idle_timeout(&self) -> Duration {
        self.settings.idle_timeout_s.map_or(DEFAULT_IDLE_TIMEOUT, Duration::from_secs)
    }
}

/// Converts a number of CPU cores to thousandths of a core. The API has already validated the range of the number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float casts saturate")]
fn millicores(cores: f64) -> u32 {
    (cores * 1_000.0).ceil() as u32
}

/// Counts, for each sandbox, the tasks that are using it.
#[derive(Default)]
struct UseTable {
    by_workspace: Mutex<HashMap<WorkspaceId, SandboxUse>>,
    /// Notified whenever a task stops using a sandbox.
    released: Notify,
}

impl UseTable {
    fn lock(&self) -> MutexGuard<'_, HashMap<WorkspaceId, SandboxUse>> {
        self.by_workspace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts sandboxes when they are needed, and stops them when they are idle. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SandboxPool {
    sandboxes: Sandboxes,
    uses: Arc<UseTable>,
}

/// Prevents a sandbox from being stopped while the guard is alive.
struct UseGuard {
    uses: Arc<UseTable>,
    workspace: WorkspaceId,
}

impl Drop for UseGuard {
    fn drop(&mut self) {
        if let Some(sandbox_use) = self.uses.lock().get_mut(&self.workspace) {
            sandbox_use.users = sandbox_use.users.saturating_sub(1);
            sandbox_use.since = Instant::now();
        }
        self.uses.released.notify_waiters();
    }
}

impl SandboxPool {
    pub(crate) fn new(sandboxes: Sandboxes) -> Self {
        Self { sandboxes, uses: Arc::default() }
    }

    /// Starts the sandbox in the background, so that it is ready for the next command.
    pub(crate) fn warm(&self, config: SandboxConfig) {
        let use_guard = self.acquire_configured(&config);
        let pool = self.clone();
        tokio::spawn(async move {
            // The error is only logged: the next command tries to start the sandbox again and reports the failure.
            if let Err(error) = pool.sandboxes.ensure(config.spec()).await {
                let workspace = config.workspace;
                tracing::debug!(%workspace, error = &error as &dyn std::error::Error, "failed to start a sandbox in advance");
            }
            drop(use_guard);
        });
    }

    /// Executes a command and waits for its outcome. The command is killed if the workspace exceeds its disk quota and
    /// keeps growing.
    pub(crate) async fn exec(&self, config: &SandboxConfig, exec: Exec) -> Result<ExecResult, Error> {
        let _use_guard = self.acquire_configured(config);
        let sandbox = self.sandboxes.ensure(config.spec()).await?;
        let exec_id = exec.exec_id.clone();
        let mut running = pin!(sandbox.exec(exec));
        tokio::select! {
            outcome = &mut running => outcome.map(|outcome| ExecResult { outcome, exceeded_disk_quota: false }),
            () = disk_quota::wait_until_over_quota(config.workspace_dir.clone(), config.settings.disk_bytes()) => {
                sandbox.kill(&exec_id);
                running.await.map(|outcome| ExecResult { outcome, exceeded_disk_quota: true })
            }
        }
    }

    /// Waits for a command that was started earlier, perhaps by a previous server process, and returns its outcome.
    /// Returns `None` if the sandbox is not running, or if the guest, which runs the commands in the sandbox, does not
    /// know the command.
    pub(crate) async fn attach(
        &self,
        workspace: WorkspaceId,
        exec_id: &str,
    ) -> Result<Option<Outcome>, Error> {
        let _use_guard = self.acquire(workspace);
        match self.sandboxes.find(&workspace.to_string()).await? {
            Some(sandbox) => sandbox.attach(exec_id).await,
            None => Ok(None),
        }
    }

    /// Tells the guest (the program that runs commands in the sandbox) that the result of a command is recorded, so
    /// that the guest can discard its copy.
    pub(crate) async fn acknowledge(&self, workspace: WorkspaceId, exec_id: &str) {
        let _use_guard = self.acquire(workspace);
        if let Ok(Some(sandbox)) = self.sandboxes.find(&workspace.to_string()).await {
            sandbox.acknowledge(exec_id);
        }
    }

    /// Kills a command whose outcome is no longer needed. Returns at once; the command is killed in the background.
    pub(crate) fn abandon(&self, workspace: WorkspaceId, exec_id: String) {
        let use_guard = self.acquire(workspace);
        let pool = self.clone();
        tokio::spawn(async move {
            if let Ok(Some(sandbox)) = pool.sandboxes.find(&workspace.to_string()).await {
                sandbox.kill(&exec_id);
                // Waits until the command has ended, because only then can the guest discard its result. This fails if
                // the sandbox has ended, and then there is no result to discard.
                let _ = sandbox.attach(&exec_id).await;
                sandbox.acknowledge(&exec_id);
            }
            drop(use_guard);
        });
    }

    /// Stops the sandbox of a workspace that no run will use again. First waits until no task uses the sandbox, because
    /// a task that is still using it could start it again.
    pub(crate) async fn retire(&self, workspace: WorkspaceId) -> Result<(), Error> {
        loop {
            let mut released = pin!(self.uses.released.notified());
            // Registers for notifications before the check, so that a release right after the check is not missed.
            released.as_mut().enable();
            if !self.is_used(workspace) {
                break;
            }
            released.await;
        }
        self.uses.lock().remove(&workspace);
        self.sandboxes.stop(&workspace.to_string()).await
    }

    fn is_used(&self, workspace: WorkspaceId) -> bool {
        self.uses.lock().get(&workspace).is_some_and(|sandbox_use| sandbox_use.users > 0)
    }

    pub(crate) async fn stop_all(&self) {
        self.sandboxes.stop_all().await;
    }

    /// Stops a workspace's sandbox if no task is using it. Returns false if a task is using it.
    pub(crate) async fn stop_unused(&self, workspace: WorkspaceId) -> Result<bool, Error> {
        let is_unused = || !self.is_used(workspace);
        self.sandboxes.stop_if(&workspace.to_string(), is_unused).await?;
        Ok(is_unused())
    }

    /// Stops idle sandboxes periodically, until `stop` is cancelled. Also cleans up the sandboxes of previous server
    /// processes, once, after `CLEANUP_DELAY`.
    pub(crate) async fn stop_idle_until(&self, stop: CancellationToken) {
        let mut cleanup_at = Some(Instant::now() + CLEANUP_DELAY);
        while stop.run_until_cancelled(tokio::time::sleep(IDLE_CHECK_INTERVAL)).await.is_some() {
            if cleanup_at.take_if(|at| *at <= Instant::now()).is_some()
                && let Err(error) = self.sandboxes.clean_up_stale().await
            {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to clean up sandboxes of previous server processes"
                );
            }
            for workspace in self.take_idle() {
                let is_unused = || !self.is_used(workspace);
                if let Err(error) = self.sandboxes.stop_if(&workspace.to_string(), is_unused).await {
                    tracing::warn!(%workspace, error = &error as &dyn std::error::Error, "failed to stop an idle sandbox");
                }
            }
        }
    }

    /// Returns the workspaces of the sandboxes that have reached their idle timeout, and removes their entries from
    /// `uses`.
    fn take_idle(&self) -> Vec<WorkspaceId> {
        let mut uses = self.uses.lock();
        let now = Instant::now();
        let idle = uses.extract_if(|_, sandbox_use| {
            sandbox_use.users == 0 && now.duration_since(sandbox_use.since) >= sandbox_use.idle_timeout
        });
        idle.map(|(workspace, _)| workspace).collect()
    }

    /// Counts the caller as a user of a sandbox until the returned guard is dropped. If `uses` has no entry for the
    /// sandbox yet, adds one with the default idle timeout.
    fn acquire(&self, workspace: WorkspaceId) -> UseGuard {
        let mut uses = self.uses.lock();
        let unused = || SandboxUse { users: 0, since: Instant::now(), idle_timeout: DEFAULT_IDLE_TIMEOUT };
        uses.entry(workspace).or_insert_with(unused).users += 1;
        UseGuard { uses: Arc::clone(&self.uses), workspace }
    }

    /// Counts the caller as a user of a sandbox until the returned guard is dropped, and sets the sandbox's idle
    /// timeout to the one in `config`.
    fn acquire_configured(&self, config: &SandboxConfig) -> UseGuard {
        let use_guard = self.acquire(config.workspace);
        if let Some(sandbox_use) = self.uses.lock().get_mut(&config.workspace) {
            sandbox_use.idle_timeout = config.idle_timeout();
        }
        use_guard
    }
}
