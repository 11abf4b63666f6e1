//! The state that all tasks of a worker share.

use std::sync::Arc;

use herm_sandbox::snapshots::Snapshots;
use herm_sandbox::workspace::Quotas;
use herm_sandbox::{Sandboxes, Workspaces};
use herm_store::Store;
use herm_types::{IdSource, Rng};
use tokio::sync::Semaphore;

use crate::egress::EgressService;
use crate::models::Models;
use crate::running::Running;
use crate::sandboxes::pool::SandboxPool;

/// The maximum number of images that a worker fetches at a time. When it is reached, other deployments that need an
/// image wait. A registry that does not respond can therefore delay the provisioning of other deployments, but never a
/// run.
pub(crate) const MAX_IMAGE_FETCHES: usize = 4;

/// State shared by all tasks of a worker.
pub(crate) struct Context {
    pub(crate) store: Store,
    pub(crate) ids: IdSource,
    pub(crate) rng: Arc<dyn Rng>,
    pub(crate) models: Models,
    pub(crate) sandboxes: Sandboxes,
    pub(crate) sandbox_pool: SandboxPool,
    /// Limits the number of images that are fetched at a time.
    pub(crate) image_fetches: Semaphore,
    pub(crate) workspaces: Workspaces,
    pub(crate) snapshots: Snapshots,
    pub(crate) quotas: Quotas,
    pub(crate) egress_service: EgressService,
    pub(crate) running: Arc<Running>,
    pub(crate) event_retention_days: Option<u32>,
}

impl Context {
    /// Returns `ms` with a random variation of ±25 %, so that tasks with the same delay do not wake at the same time.
    pub(crate) fn jittered(&self, ms: i64) -> i64 {
        let mut random = [0u8; 2];
        self.rng.fill(&mut random);
        let quarter = ms / 4;
        ms - quarter + i64::from(u16::from_le_bytes(random)) * 2 * quarter / i64::from(u16::MAX)
    }
}
