//! Which sandboxes are in use, and which have been idle for so long that they stop.

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use herm_sandbox::{AWAY_LIMIT, Error, Exec, Limits, Outcome, Sandboxes, Spec, WorkspaceId};
use herm_types::sandbox::SandboxSettings;
use serde_json::Number;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::disk;

/// A sandbox that nobody used for so long is stopped, if its deployment says nothing else; the next command starts it
/// again.
const IDLE: Duration = Duration::from_secs(300);
/// After a server's start: by then the sandboxes of an earlier one that nobody needs have ended by themselves.
const CLEAR_AFTER: Duration = AWAY_LIMIT.saturating_mul(2);
/// Between two looks for idle sandboxes.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Bytes of a MiB, in which deployments say their limits.
pub(crate) const MIB: u64 = 1024 * 1024;

struct Use {
    users: usize,
    since: Instant,
    /// After so long without a user it is idle.
    idle: Duration,
}

/// A workspace's sandbox as it is to be when it is started.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) workspace: WorkspaceId,
    pub(crate) workspace_dir: PathBuf,
    pub(crate) settings: SandboxSettings,
}

/// What became of a command.
pub(crate) struct Ran {
    pub(crate) outcome: Outcome,
    /// It was stopped, as the workspace held more than it may.
    pub(crate) has_filled_disk: bool,
}

impl Wanted {
    /// Bytes of memory that the sandbox's processes may use together.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.settings.memory_mb.map_or(Limits::default().memory_bytes, |mb| mb.saturating_mul(MIB))
    }

    fn spec(&self) -> Spec {
        let usual = Limits::default();
        let cpu = self.settings.cpu.as_ref().and_then(Number::as_f64);
        Spec {
            sandbox_id: self.workspace.to_string(),
            engine: self.settings.engine.unwrap_or(self.settings.kind),
            image: self.settings.image.clone(),
            workspace_dir: self.workspace_dir.clone(),
            env: Vec::new(),
            limits: Limits {
                cpu_millis: cpu.map_or(usual.cpu_millis, millis),
                memory_bytes: self.memory_bytes(),
                processes: usual.processes,
            },
        }
    }

    fn idle(&self) -> Duration {
        self.settings.idle_timeout_s.map_or(IDLE, Duration::from_secs)
    }
}

/// Thousandths of a core; what a deployment may ask for was bounded when it was.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
fn millis(cores: f64) -> u32 {
    (cores * 1_000.0).ceil() as u32
}

/// Who uses which sandbox.
#[derive(Default)]
struct Uses {
    of: Mutex<HashMap<WorkspaceId, Use>>,
    /// Somebody has left.
    left: Notify,
}

impl Uses {
    fn of(&self) -> MutexGuard<'_, HashMap<WorkspaceId, Use>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts sandboxes when they are needed, and stops them when they are not.
#[derive(Clone)]
pub(crate) struct Keeper {
    sandboxes: Sandboxes,
    uses: Arc<Uses>,
}

/// Keeps a sandbox from being stopped as idle while it lives.
struct InUse {
    uses: Arc<Uses>,
    workspace: WorkspaceId,
}

impl Drop for InUse {
    fn drop(&mut self) {
        if let Some(of_it) = self.uses.of().get_mut(&self.workspace) {
            of_it.users = of_it.users.saturating_sub(1);
            of_it.since = Instant::now();
        }
        self.uses.left.notify_waiters();
    }
}

impl Keeper {
    pub(crate) fn new(sandboxes: Sandboxes) -> Self {
        Self { sandboxes, uses: Arc::default() }
    }

    /// Starts the sandbox in the background, so that it is there when a command comes.
    pub(crate) fn warm(&self, wanted: Wanted) {
        let in_use = self.enter_as(&wanted);
        let keeper = self.clone();
        tokio::spawn(async move {
            // A failure is told by the command that needs the sandbox.
            if let Err(error) = keeper.sandboxes.ensure(wanted.spec()).await {
                let workspace = wanted.workspace;
                tracing::debug!(%workspace, error = &error as &dyn std::error::Error, "no warm sandbox");
            }
            drop(in_use);
        });
    }

    /// Runs a command to its end. One that goes on filling a workspace that is full is stopped.
    pub(crate) async fn exec(&self, wanted: &Wanted, exec: Exec) -> Result<Ran, Error> {
        let _in_use = self.enter_as(wanted);
        let sandbox = self.sandboxes.ensure(wanted.spec()).await?;
        let exec_id = exec.exec_id.clone();
        let mut running = pin!(sandbox.exec(exec));
        tokio::select! {
            outcome = &mut running => outcome.map(|outcome| Ran { outcome, has_filled_disk: false }),
            () = disk::overfull(wanted.workspace_dir.clone(), wanted.settings.disk_bytes()) => {
                sandbox.kill(&exec_id);
                running.await.map(|outcome| Ran { outcome, has_filled_disk: true })
            }
        }
    }

    /// What a command gave that an earlier server began, waiting for its end; `None` if nobody knows.
    pub(crate) async fn attach(
        &self,
        workspace: WorkspaceId,
        exec_id: &str,
    ) -> Result<Option<Outcome>, Error> {
        let _in_use = self.enter(workspace);
        match self.sandboxes.find(&workspace.to_string()).await? {
            Some(sandbox) => sandbox.attach(exec_id).await,
            None => Ok(None),
        }
    }

    /// Lets the guest forget a command whose result is recorded.
    pub(crate) async fn acknowledge(&self, workspace: WorkspaceId, exec_id: &str) {
        let _in_use = self.enter(workspace);
        if let Ok(Some(sandbox)) = self.sandboxes.find(&workspace.to_string()).await {
            sandbox.acknowledge(exec_id);
        }
    }

    /// Stops a command whose outcome nobody wants any more, in the background.
    pub(crate) fn abandon(&self, workspace: WorkspaceId, exec_id: String) {
        let in_use = self.enter(workspace);
        let keeper = self.clone();
        tokio::spawn(async move {
            if let Ok(Some(sandbox)) = keeper.sandboxes.find(&workspace.to_string()).await {
                sandbox.kill(&exec_id);
                // Once it has ended the guest may forget it; one that cannot be asked is gone.
                let _ = sandbox.attach(&exec_id).await;
                sandbox.acknowledge(&exec_id);
            }
            drop(in_use);
        });
    }

    /// Stops the sandbox of a workspace whose runs have ended for good, once nobody uses it any more: who warms it
    /// up meanwhile would otherwise start it again.
    pub(crate) async fn retire(&self, workspace: WorkspaceId) -> Result<(), Error> {
        loop {
            let mut left = pin!(self.uses.left.notified());
            // From here on no departure is missed.
            left.as_mut().enable();
            if !self.is_used(workspace) {
                break;
            }
            left.await;
        }
        self.uses.of().remove(&workspace);
        self.sandboxes.stop(&workspace.to_string()).await
    }

    fn is_used(&self, workspace: WorkspaceId) -> bool {
        self.uses.of().get(&workspace).is_some_and(|of_it| of_it.users > 0)
    }

    pub(crate) async fn stop_all(&self) {
        self.sandboxes.stop_all().await;
    }

    /// Stops a sandbox that nobody uses; `false` if somebody does.
    pub(crate) async fn stop_unused(&self, workspace: WorkspaceId) -> Result<bool, Error> {
        let is_unused = || !self.is_used(workspace);
        self.sandboxes.stop_if(&workspace.to_string(), is_unused).await?;
        Ok(is_unused())
    }

    /// Stops idle sandboxes, now and then, until the worker stops.
    pub(crate) async fn stop_idle_until(&self, stop: CancellationToken) {
        let mut clear_at = Some(Instant::now() + CLEAR_AFTER);
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            if clear_at.take_if(|at| *at <= Instant::now()).is_some()
                && let Err(error) = self.sandboxes.clear_left().await
            {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to clear up after sandboxes"
                );
            }
            for workspace in self.idle() {
                let is_unused = || !self.is_used(workspace);
                if let Err(error) = self.sandboxes.stop_if(&workspace.to_string(), is_unused).await {
                    tracing::warn!(%workspace, error = &error as &dyn std::error::Error, "failed to stop a sandbox");
                }
            }
        }
    }

    fn idle(&self) -> Vec<WorkspaceId> {
        let mut uses = self.uses.of();
        let now = Instant::now();
        let idle =
            uses.extract_if(|_, of_it| of_it.users == 0 && now.duration_since(of_it.since) >= of_it.idle);
        idle.map(|(workspace, _)| workspace).collect()
    }

    /// Uses a sandbox of which nothing but its name is known.
    fn enter(&self, workspace: WorkspaceId) -> InUse {
        let mut uses = self.uses.of();
        let fresh = || Use { users: 0, since: Instant::now(), idle: IDLE };
        uses.entry(workspace).or_insert_with(fresh).users += 1;
        InUse { uses: Arc::clone(&self.uses), workspace }
    }

    /// Uses a sandbox, whose idle time is from now on what its deployment says.
    fn enter_as(&self, wanted: &Wanted) -> InUse {
        let in_use = self.enter(wanted.workspace);
        if let Some(of_it) = self.uses.of().get_mut(&wanted.workspace) {
            of_it.idle = wanted.idle();
        }
        in_use
    }
}
