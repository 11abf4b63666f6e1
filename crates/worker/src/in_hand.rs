//! The work that this worker has in hand, and how its tasks are reached from outside.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use herm_sandbox::workspace;
use herm_sandbox::workspace::archive::{ArchiveError, Stop};
use herm_store::queue::Lease;
use herm_types::{DeploymentId, WorkId};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::worker::Context;

/// The items in hand.
#[derive(Default)]
pub(crate) struct Running {
    /// By item and fence: one that was lost and claimed anew is two until its first task has stopped.
    items: Mutex<HashMap<Claim, Item>>,
    count: watch::Sender<usize>,
}

type Claim = (WorkId, i64);

fn claim_of(lease: &Lease) -> Claim {
    (lease.work_id, lease.fence)
}

struct Item {
    deployment_id: DeploymentId,
    subject_id: String,
    signals: Signals,
}

/// How a task that carries out work is reached from outside.
#[derive(Clone, Default)]
pub(crate) struct Signals {
    /// It must end where it stands.
    pub(crate) stop: CancellationToken,
    /// What it works on was changed: it must look.
    pub(crate) look: Arc<Notify>,
}

impl Running {
    pub(crate) fn add(&self, lease: &Lease) -> Signals {
        let signals = Signals::default();
        let mut items = self.items();
        let (deployment_id, subject_id) = (lease.deployment_id, lease.subject_id.clone());
        items.insert(claim_of(lease), Item { deployment_id, subject_id, signals: signals.clone() });
        self.count.send_replace(items.len());
        signals
    }

    fn remove(&self, claim: Claim) {
        let mut items = self.items();
        items.remove(&claim);
        self.count.send_replace(items.len());
    }

    fn items(&self) -> MutexGuard<'_, HashMap<Claim, Item>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the tasks whose subject this is look at it again; all of them where it is not known which.
    pub(crate) fn let_look(&self, subject_id: Option<&str>) {
        let items = self.items();
        let of_it = items.values().filter(|item| subject_id.is_none_or(|wanted| item.subject_id == wanted));
        of_it.for_each(|item| item.signals.look.notify_one());
    }

    pub(crate) fn len(&self) -> usize {
        *self.count.borrow()
    }

    pub(crate) fn cancel_all(&self) {
        self.items().values().for_each(|item| item.signals.stop.cancel());
    }

    /// Cuts off what is at work for a deployment, except `but`, and waits until it has stopped.
    pub(crate) async fn cancel_of_deployment(&self, deployment_id: DeploymentId, but: WorkId) {
        self.cancel_where(|work_id, item| item.deployment_id == deployment_id && work_id != but).await;
    }

    /// Cuts off what is at work on these subjects, and waits until it has stopped.
    pub(crate) async fn cancel_of_subjects(&self, subject_ids: &[String]) {
        self.cancel_where(|_, item| subject_ids.contains(&item.subject_id)).await;
    }

    async fn cancel_where(&self, is_one: impl Fn(WorkId, &Item) -> bool) {
        let chosen = || {
            let items = self.items();
            let chosen = items.iter().filter(|((work_id, _), item)| is_one(*work_id, item));
            chosen.map(|(_, item)| item.signals.stop.clone()).collect::<Vec<_>>()
        };
        let mut count = self.count.subscribe();
        loop {
            let tokens = chosen();
            tokens.iter().for_each(CancellationToken::cancel);
            if tokens.is_empty() || count.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until nothing is in hand; `false` if `limit` came first.
    pub(crate) async fn wait_until_none(&self, limit: Duration) -> bool {
        let mut count = self.count.subscribe();
        tokio::time::timeout(limit, count.wait_for(|count| *count == 0)).await.is_ok()
    }
}

/// Takes an item out of hand when its task ends, also by a panic.
pub(crate) struct InHand {
    context: Arc<Context>,
    claim: Claim,
}

impl InHand {
    pub(crate) fn new(context: &Arc<Context>, lease: &Lease) -> Self {
        Self { context: Arc::clone(context), claim: claim_of(lease) }
    }
}

/// Tells work that blocks to stop when who waits for it has gone.
struct StopWhenDropped(Stop);

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Does what blocks on a thread of its own. Cut off, it is told to stop, and the item stays in hand until it has: who
/// waits for that finds nobody at work on its files.
pub(crate) async fn blocking<T: Send + 'static>(
    in_hand: &Arc<InHand>,
    work: impl FnOnce(&Stop) -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, ArchiveError> {
    let (stop, in_hand) = (Stop::default(), Arc::clone(in_hand));
    let _guard = StopWhenDropped(stop.clone());
    let worked = tokio::task::spawn_blocking(move || {
        let done = work(&stop);
        drop(in_hand);
        done
    });
    worked.await.unwrap_or_else(|error| Err(workspace::Error::Io(std::io::Error::other(error)).into()))
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.context.running.remove(self.claim);
    }
}

#[cfg(test)]
mod tests {
    use herm_store::queue::Kind;
    use herm_types::IdSource;
    use herm_types::time::{SystemClock, SystemRng};

    use super::*;

    #[test]
    fn an_item_that_is_claimed_anew_is_reached_also_when_its_first_task_has_stopped() {
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
