//! The registry of the work items that this worker is executing. Other tasks use it to notify or abort the tasks that
//! execute the items.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use herm_sandbox::workspace;
use herm_sandbox::workspace::archive::{ArchiveError, Stop};
use herm_store::queue::Lease;
use herm_types::{DeploymentId, WorkId};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// The work items that this worker is executing.
#[derive(Default)]
pub(crate) struct Running {
    /// Keyed by work item and fence (the number of the lease). If this worker loses an item's lease and claims the item
    /// again, the item has two entries until the first task has stopped.
    items: Mutex<HashMap<Claim, RunningItem>>,
    count: watch::Sender<usize>,
}

type Claim = (WorkId, i64);

fn claim_of(lease: &Lease) -> Claim {
    (lease.work_id, lease.fence)
}

struct RunningItem {
    deployment_id: DeploymentId,
    subject_id: String,
    signals: Signals,
}

/// Signals that other tasks send to the task of a work item.
#[derive(Clone, Default)]
pub(crate) struct Signals {
    /// Cancelled to abort the task.
    pub(crate) stop: CancellationToken,
    /// Notified when the item's subject, for example its run, was changed. The task must then read the subject again.
    pub(crate) changed: Arc<Notify>,
}

impl Running {
    pub(crate) fn add(&self, lease: &Lease) -> Signals {
        let signals = Signals::default();
        let mut items = self.items();
        let (deployment_id, subject_id) = (lease.deployment_id, lease.subject_id.clone());
        items.insert(claim_of(lease), RunningItem { deployment_id, subject_id, signals: signals.clone() });
        self.count.send_replace(items.len());
        signals
    }

    fn remove(&self, claim: Claim) {
        let mut items = self.items();
        items.remove(&claim);
        self.count.send_replace(items.len());
    }

    fn items(&self) -> MutexGuard<'_, HashMap<Claim, RunningItem>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notifies the tasks of the work items with this subject id that the subject was changed. If `subject_id` is
    /// `None`, notifies the tasks of all work items.
    pub(crate) fn notify_changed(&self, subject_id: Option<&str>) {
        let items = self.items();
        let matching =
            items.values().filter(|item| subject_id.is_none_or(|subject_id| item.subject_id == subject_id));
        matching.for_each(|item| item.signals.changed.notify_one());
    }

    pub(crate) fn len(&self) -> usize {
        *self.count.borrow()
    }

    pub(crate) fn cancel_all(&self) {
        self.items().values().for_each(|item| item.signals.stop.cancel());
    }

    /// Aborts all running work items of a deployment, apart from the item `except`, and waits until the tasks of the
    /// aborted items have stopped.
    pub(crate) async fn cancel_deployment(&self, deployment_id: DeploymentId, except: WorkId) {
        self.cancel_where(|work_id, item| item.deployment_id == deployment_id && work_id != except).await;
    }

    /// Aborts the running work items with these subject ids, and waits until their tasks have stopped.
    pub(crate) async fn cancel_subjects(&self, subject_ids: &[String]) {
        self.cancel_where(|_, item| subject_ids.contains(&item.subject_id)).await;
    }

    async fn cancel_where(&self, matches: impl Fn(WorkId, &RunningItem) -> bool) {
        let matching_tokens = || {
            let items = self.items();
            let matching = items.iter().filter(|((work_id, _), item)| matches(*work_id, item));
            matching.map(|(_, item)| item.signals.stop.clone()).collect::<Vec<_>>()
        };
        let mut count = self.count.subscribe();
        loop {
            let tokens = matching_tokens();
            tokens.iter().for_each(CancellationToken::cancel);
            if tokens.is_empty() || count.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until no work item is running. Returns false if this takes longer than `limit`.
    pub(crate) async fn wait_until_none(&self, limit: Duration) -> bool {
        let mut count = self.count.subscribe();
        tokio::time::timeout(limit, count.wait_for(|count| *count == 0)).await.is_ok()
    }
}

/// When dropped, removes a work item from the registry. The item is therefore removed even if its task panics or is
/// aborted.
pub(crate) struct RunningGuard {
    running: Arc<Running>,
    claim: Claim,
}

impl RunningGuard {
    pub(crate) fn new(running: Arc<Running>, lease: &Lease) -> Self {
        Self { running, claim: claim_of(lease) }
    }
}

/// When dropped, tells blocking work to stop. It is dropped together with the future that waits for the work.
struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Runs blocking work on Tokio's blocking thread pool. If the returned future is dropped, the work is signalled to
/// stop. The work item stays registered until the work has really stopped, so that other tasks can wait until the work
/// no longer uses any files.
pub(crate) async fn run_blocking<T: Send + 'static>(
    guard: &Arc<RunningGuard>,
    work: impl FnOnce(&Stop) -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, ArchiveError> {
    let (stop, guard) = (Stop::default(), Arc::clone(guard));
    let _guard = StopOnDrop(stop.clone());
    let result = tokio::task::spawn_blocking(move || {
        let done = work(&stop);
        drop(guard);
        done
    });
    result.await.unwrap_or_else(|error| Err(workspace::Error::Io(std::io::Error::other(error)).into()))
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.running.remove(self.claim);
    }
}

#[cfg(test)]
mod tests {
    use herm_store::queue::Kind;
    use herm_types::IdSource;
    use herm_types::time::{SystemClock, SystemRng};

    use super::*;

    #[test]
    fn an_item_claimed_again_is_cancelled_even_after_its_first_task_has_stopped() {
        let ids = IdSource::new(Arc::new(SystemClock), Arc::new(SystemRng));
        let lease = Lease {
            work_id: ids.next(),
            kind: Kind::Run,
            subject_id: "run".to_owned(),
            deployment_id: ids.next(),
            fence: 1,
            attempts: 1,
        };
        let running = Running::default();
        running.add(&lease);
        let second = running.add(&Lease { fence: 2, ..lease.clone() });
        running.remove(claim_of(&lease));
        assert_eq!(running.len(), 1);
        running.cancel_all();
        assert!(second.stop.is_cancelled());
    }
}
