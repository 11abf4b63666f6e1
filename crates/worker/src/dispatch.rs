//! Claims work items from the queue and executes each of them in its own task.

use std::sync::Arc;
use std::time::Duration;

use herm_store::queue::{self, Kind, Lease};
use herm_store::runs::{self, Transition};
use herm_store::{Error, Tx, failpoint};
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use crate::context::Context;
use crate::jobs::{erase_thread, provision, run, teardown};
use crate::lease::HeldLease;
use crate::running::{RunningGuard, Signals};

/// The maximum number of work items that one worker executes at a time. Further items wait in the queue.
const MAX_RUNNING_ITEMS: usize = 512;
/// The maximum number of work items that are claimed in one transaction.
const MAX_CLAIM: usize = 64;
/// The duration of a lease, in milliseconds, from its claim or latest renewal. When a lease has expired, any worker may
/// claim the work item.
const LEASE_MS: i64 = 30_000;
/// The interval at which the leases of running work items are renewed.
const RENEW_INTERVAL: Duration = Duration::from_secs(10);
/// The interval at which the queue is polled when no wake-up arrives, in milliseconds.
const POLL_INTERVAL_MS: i64 = 400;
/// The delay before a work item is retried after an internal error, in milliseconds.
const RETRY_DELAY_MS: i64 = 2_000;
/// The owner name that is stored with each lease, for information only. The fence, a number that grows with each claim,
/// alone determines which worker holds the lease.
const OWNER: &str = "server";

/// Claims work items and spawns a task for each, until `stop` is cancelled.
pub(crate) async fn run(context: Arc<Context>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let capacity = MAX_CLAIM.min(MAX_RUNNING_ITEMS.saturating_sub(context.running.len()));
        let claimed = match claim(&context, capacity).await {
            Ok(leases) => leases,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "failed to claim work items from the queue"
                );
                Vec::new()
            }
        };
        let is_queue_drained = claimed.len() < MAX_CLAIM;
        for lease in claimed {
            let signals = context.running.add(&lease);
            let lease = HeldLease::new(context.store.clone(), lease);
            let span = span_of(&lease);
            tokio::spawn(execute(Arc::clone(&context), lease, signals).instrument(span));
        }
        if is_queue_drained {
            let pause =
                Duration::from_millis(u64::try_from(context.jittered(POLL_INTERVAL_MS)).unwrap_or_default());
            tokio::select! {
                () = context.store.feed().work_added() => {}
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

async fn claim(context: &Context, capacity: usize) -> Result<Vec<Lease>, Error> {
    if capacity == 0 {
        return Ok(Vec::new());
    }
    let limit = i64::try_from(capacity).unwrap_or(i64::MAX);
    context
        .store
        .transaction("claim_work", move |tx| {
            Box::pin(async move {
                let leases = queue::claim(tx, OWNER, limit, LEASE_MS).await?;
                for lease in leases.iter().filter(|lease| lease.kind == Kind::Run) {
                    runs::transition(tx, lease.subject()?, Transition::Start).await?;
                }
                Ok(leases)
            })
        })
        .await
}

/// Forwards the store's notifications about changed runs to the tasks that execute these runs. If notifications were
/// lost, all tasks are notified.
pub(crate) async fn forward_change_notifications(context: Arc<Context>, stop: CancellationToken) {
    let mut notifications = context.store.feed().changed_runs();
    while let Some(notification) = stop.run_until_cancelled(notifications.recv()).await {
        match notification {
            Ok(run_id) => context.running.notify_changed(Some(&run_id.to_string())),
            Err(RecvError::Lagged(_)) => context.running.notify_changed(None),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Returns the span that encloses all log lines of a job. Its fields identify what the job works on. Its level is the
/// highest one, so that no filter separates a line from its ids.
fn span_of(lease: &Lease) -> Span {
    let (deployment_id, work_id, claims) = (lease.deployment_id, lease.work_id, lease.attempts);
    let subject_id = lease.subject_id.as_str();
    match lease.kind {
        Kind::Run => tracing::error_span!("run", run_id = subject_id, %deployment_id, %work_id, claims),
        Kind::EraseThread => {
            tracing::error_span!("erase_thread", thread_id = subject_id, %deployment_id, %work_id, claims)
        }
        Kind::Provision => tracing::error_span!("provision", %deployment_id, %work_id, claims),
        Kind::Teardown => tracing::error_span!("teardown", %deployment_id, %work_id, claims),
    }
}

async fn execute(context: Arc<Context>, lease: HeldLease, signals: Signals) {
    let guard = Arc::new(RunningGuard::new(Arc::clone(&context.running), &lease));
    failpoint::reach("work.taken", lease.kind.as_str());
    let work = async {
        match lease.kind {
            Kind::Run => run::drive(&context, &lease, &signals.changed).await,
            Kind::Teardown => teardown::tear_down(&context, &lease, &guard).await,
            Kind::EraseThread => erase_thread::erase_thread(&context, &lease, &guard).await,
            Kind::Provision => provision::provision(&context, &lease, &guard).await,
        }
    };
    let result = tokio::select! {
        result = work => result,
        lost = renew_until_lost(&lease, &signals.changed) => Err(lost),
        () = signals.stop.cancelled() => Ok(()),
    };
    match result {
        // These errors need no retry: another worker has claimed the work item, or its deployment was deleted.
        Ok(()) | Err(Error::LeaseLost | Error::DeploymentDeleted) => {}
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "failed to execute a work item; it will be retried"
            );
            release(&context, &lease).await;
        }
    }
}

/// Renews a work item's lease periodically. Returns [`Error::LeaseLost`] as soon as the lease is lost.
async fn renew_until_lost(lease: &HeldLease, changed: &Notify) -> Error {
    loop {
        tokio::time::sleep(RENEW_INTERVAL).await;
        let renewed = lease.transaction("renew_lease", move |tx, lease| {
            Box::pin(async move {
                queue::renew(tx, &lease, LEASE_MS).await?;
                is_cancelled(tx, &lease).await
            })
        });
        match renewed.await {
            // A client has requested the run's cancellation. The change notification about it may have been lost, so
            // the run's task is notified here too.
            Ok(is_cancelled) if is_cancelled => changed.notify_one(),
            Ok(_) => {}
            Err(Error::LeaseLost) => return Error::LeaseLost,
            // The next renewal may succeed. If the lease expires first, another worker may claim the item. This
            // worker's writes are then rejected, because the fence of its lease is out of date.
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to renew the lease of a work item; trying again"
            ),
        }
    }
}

async fn is_cancelled(tx: &mut Tx, lease: &Lease) -> Result<bool, Error> {
    if lease.kind != Kind::Run {
        return Ok(false);
    }
    runs::is_cancel_requested(tx, lease.subject()?).await
}

/// Puts a work item back into the queue after an internal error. It is retried after a delay.
async fn release(context: &Context, lease: &HeldLease) {
    let delay = context.jittered(RETRY_DELAY_MS);
    let released = lease.transaction("give_work_back", move |tx, lease| {
        Box::pin(async move { queue::postpone(tx, &lease, delay).await })
    });
    if let Err(error) = released.await {
        // There is nothing more to do: when the lease expires, the work item can be claimed again.
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "failed to return a work item to the queue; it will be retried when its lease expires"
        );
    }
}
