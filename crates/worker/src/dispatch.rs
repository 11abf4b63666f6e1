//! Claims work and hands each item to a task of its own.

use std::sync::Arc;
use std::time::Duration;

use herm_store::queue::{self, Kind, Lease};
use herm_store::{Error, Tx, fault, runs};
use herm_types::RunId;
use herm_types::event::Event;
use herm_types::run::RunStatus;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::in_hand::{InHand, Signals};
use crate::worker::Context;
use crate::{provision, run, teardown};

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
            let signals = context.running.add(&lease);
            tokio::spawn(carry_out(Arc::clone(&context), lease, signals));
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

/// Passes on what other parts of the server say of runs that are in hand.
pub(crate) async fn hear_nudges(context: Arc<Context>, stop: CancellationToken) {
    let mut nudges = context.store.feed().nudges();
    while let Some(nudged) = stop.run_until_cancelled(nudges.recv()).await {
        match nudged {
            Ok(run_id) => context.running.let_look(Some(&run_id.to_string())),
            Err(RecvError::Lagged(_)) => context.running.let_look(None),
            Err(RecvError::Closed) => return,
        }
    }
}

async fn carry_out(context: Arc<Context>, lease: Lease, signals: Signals) {
    let in_hand = Arc::new(InHand::new(&context, &lease));
    fault::reach("work.taken", lease.kind.as_str());
    let work = async {
        match lease.kind {
            Kind::Run => run::drive(&context, &lease, &signals.look).await,
            Kind::Teardown => teardown::tear_down(&context, &lease, &in_hand).await,
            Kind::EraseThread => teardown::erase_thread(&context, &lease, &in_hand).await,
            Kind::Provision => provision::provision(&context, &lease, &in_hand).await,
        }
    };
    let result = tokio::select! {
        result = work => result,
        lost = keep_lease(&context, &lease, &signals.look) => Err(lost),
        () = signals.stop.cancelled() => Ok(()),
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
async fn keep_lease(context: &Context, lease: &Lease, look: &Notify) -> Error {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        let held = lease.clone();
        let renewed = context
            .store
            .transaction("renew_lease", move |tx| {
                Box::pin(async move {
                    queue::renew(tx, &held, LEASE_MS).await?;
                    is_cancelled(tx, &held).await
                })
            })
            .await;
        match renewed {
            // A nudge may have been lost on its way from another server.
            Ok(is_cancelled) if is_cancelled => look.notify_one(),
            Ok(_) => {}
            Err(Error::LeaseLost) => return Error::LeaseLost,
            // The next renewal may succeed; if none does, the fence stops this worker's writes.
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "failed to renew a lease"),
        }
    }
}

async fn is_cancelled(tx: &mut Tx, lease: &Lease) -> Result<bool, Error> {
    if lease.kind != Kind::Run {
        return Ok(false);
    }
    runs::is_cancel_requested(tx, subject(lease)?).await
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
