//! Claims work and hands each item to a task of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use herm_store::queue::{self, Kind, Lease};
use herm_store::{Error, Tx, fault, runs};
use herm_types::event::Event;
use herm_types::run::RunStatus;
use herm_types::{DeploymentId, RunId, WorkId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::worker::Context;
use crate::{run, teardown};

/// Items that one worker has in hand at most.
const MAX_IN_HAND: usize = 512;
/// Items that one claim takes at most.
const MAX_CLAIM: usize = 64;
/// How long a claim holds without being renewed, in milliseconds.
const LEASE_MS: i64 = 30_000;
/// Between two renewals of a lease.
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// Between two looks at the queue when no hint comes, in milliseconds.
const POLL_MS: i64 = 400;
/// Before an item whose work failed for no reason of its own is tried again, in milliseconds.
const RETRY_MS: i64 = 2_000;
/// Names this process in leases; who holds one is decided by its fence, not by this.
const OWNER: &str = "server";

/// The items in hand.
#[derive(Default)]
pub(crate) struct Running {
    items: Mutex<HashMap<WorkId, (DeploymentId, CancellationToken)>>,
    count: watch::Sender<usize>,
}

impl Running {
    fn add(&self, lease: &Lease) -> CancellationToken {
        let token = CancellationToken::new();
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        items.insert(lease.work_id, (lease.deployment_id, token.clone()));
        self.count.send_replace(items.len());
        token
    }

    fn len(&self) -> usize {
        *self.count.borrow()
    }

    pub(crate) fn cancel_all(&self) {
        let items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        items.values().for_each(|(_, token)| token.cancel());
    }

    /// Cuts off what is at work for a deployment, except `but`, and waits until it has stopped.
    pub(crate) async fn cancel_of_deployment(&self, deployment_id: DeploymentId, but: WorkId) {
        let others = || {
            let items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
            let of_it = items.iter().filter(|(id, (of, _))| *of == deployment_id && **id != but);
            of_it.map(|(_, (_, token))| token.clone()).collect::<Vec<_>>()
        };
        let mut count = self.count.subscribe();
        loop {
            let tokens = others();
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
struct InHand {
    context: Arc<Context>,
    work_id: WorkId,
}

impl Drop for InHand {
    fn drop(&mut self) {
        let running = &self.context.running;
        let mut items = running.items.lock().unwrap_or_else(PoisonError::into_inner);
        items.remove(&self.work_id);
        running.count.send_replace(items.len());
    }
}

/// Claims until it is stopped.
pub(crate) async fn run(context: Arc<Context>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let room = MAX_CLAIM.min(MAX_IN_HAND.saturating_sub(context.running.len()));
        let claimed = match claim(&context, room).await {
            Ok(leases) => leases,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "failed to claim work");
                Vec::new()
            }
        };
        let took_all = claimed.len() < MAX_CLAIM;
        for lease in claimed {
            let token = context.running.add(&lease);
            tokio::spawn(carry_out(Arc::clone(&context), lease, token));
        }
        if took_all {
            let pause = Duration::from_millis(u64::try_from(context.jittered(POLL_MS)).unwrap_or_default());
            tokio::select! {
                () = context.store.feed().work_added() => {}
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

async fn claim(context: &Context, room: usize) -> Result<Vec<Lease>, Error> {
    if room == 0 {
        return Ok(Vec::new());
    }
    let limit = i64::try_from(room).unwrap_or(i64::MAX);
    context
        .store
        .transaction("claim_work", move |tx| {
            Box::pin(async move {
                let leases = queue::claim(tx, OWNER, limit, LEASE_MS).await?;
                for lease in leases.iter().filter(|lease| lease.kind == Kind::Run) {
                    start_run(tx, lease).await?;
                }
                Ok(leases)
            })
        })
        .await
}

/// A queued run begins with its first claim.
async fn start_run(tx: &mut Tx, lease: &Lease) -> Result<(), Error> {
    let run_id: RunId = subject(lease)?;
    if let Some(thread_id) = runs::start(tx, run_id).await? {
        let status = RunStatus::Running;
        tx.emit(
            lease.deployment_id,
            Event::RunStatus { run_id, thread_id, status, error: None, usage: None },
        );
    }
    Ok(())
}

pub(crate) fn subject<I: std::str::FromStr>(lease: &Lease) -> Result<I, Error> {
    lease
        .subject_id
        .parse()
        .map_err(|_| Error::Corrupt(format!("{:?} is not the id of such work", lease.subject_id)))
}

async fn carry_out(context: Arc<Context>, lease: Lease, token: CancellationToken) {
    let _in_hand = InHand { context: Arc::clone(&context), work_id: lease.work_id };
    fault::reach("work.taken", lease.kind.as_str());
    let work = async {
        match lease.kind {
            Kind::Run => run::drive(&context, &lease).await,
            Kind::Teardown => teardown::tear_down(&context, &lease).await,
        }
    };
    let result = tokio::select! {
        result = work => result,
        lost = keep_lease(&context, &lease) => Err(lost),
        () = token.cancelled() => Ok(()),
    };
    match result {
        // Somebody else has the work, or nobody shall have it.
        Ok(()) | Err(Error::LeaseLost | Error::DeploymentDeleted) => {}
        Err(error) => {
            tracing::error!(
                subject = lease.subject_id,
                error = &error as &dyn std::error::Error,
                "work failed"
            );
            give_back(&context, &lease).await;
        }
    }
}

/// Renews the lease until that fails.
async fn keep_lease(context: &Context, lease: &Lease) -> Error {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        let held = lease.clone();
        let renewed = context
            .store
            .transaction("renew_lease", move |tx| {
                Box::pin(async move { queue::renew(tx, &held, LEASE_MS).await })
            })
            .await;
        match renewed {
            Ok(()) => {}
            Err(Error::LeaseLost) => return Error::LeaseLost,
            // The next renewal may succeed; if none does, the fence stops this worker's writes.
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "failed to renew a lease"),
        }
    }
}

async fn give_back(context: &Context, lease: &Lease) {
    let (held, delay) = (lease.clone(), context.jittered(RETRY_MS));
    let given_back = context
        .store
        .transaction("give_work_back", move |tx| {
            Box::pin(async move { queue::postpone(tx, &held, delay).await })
        })
        .await;
    if let Err(error) = given_back {
        // The lease runs out by itself, and the work is claimed anew.
        tracing::warn!(error = &error as &dyn std::error::Error, "failed to give work back");
    }
}
