//! Starting a worker, and stopping it.

use std::sync::Arc;
use std::time::Duration;

use herm_llm::Providers;
use herm_sandbox::snapshots::Snapshots;
use herm_sandbox::workspace::Quotas;
use herm_sandbox::{Sandboxes, Workspaces};
use herm_store::{Store, connections, idempotent_requests, messages, queue, runs};
use herm_types::{IdSource, Rng};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::egress::WaysOut;
use crate::in_hand::Running;
use crate::keeper::Keeper;
use crate::models::Models;
use crate::{dispatch, provision, retention};

/// What a worker works with.
pub struct Options {
    pub store: Store,
    pub ids: IdSource,
    pub rng: Arc<dyn Rng>,
    pub providers: Providers,
    pub sandboxes: Sandboxes,
    pub workspaces: Workspaces,
    /// Where deleted deployments' files are kept.
    pub snapshots: Snapshots,
    /// What of workspaces is used.
    pub quotas: Quotas,
    /// Closed by the worker when it stops.
    pub ways_out: WaysOut,
    /// Days for which events are kept; `None`: as long as their deployment.
    pub event_retention_days: Option<u32>,
}

/// What everything in a worker shares.
pub(crate) struct Context {
    pub(crate) store: Store,
    pub(crate) ids: IdSource,
    pub(crate) rng: Arc<dyn Rng>,
    pub(crate) models: Models,
    pub(crate) sandboxes: Sandboxes,
    pub(crate) keeper: Keeper,
    /// Each is an image that is being fetched.
    pub(crate) fetches: Semaphore,
    pub(crate) workspaces: Workspaces,
    pub(crate) snapshots: Snapshots,
    pub(crate) quotas: Quotas,
    pub(crate) ways_out: WaysOut,
    pub(crate) running: Running,
    pub(crate) event_retention_days: Option<u32>,
}

impl Context {
    /// A delay of `ms` give or take a quarter, so that many that wait don't wake together.
    pub(crate) fn jittered(&self, ms: i64) -> i64 {
        let mut random = [0u8; 2];
        self.rng.fill(&mut random);
        let quarter = ms / 4;
        ms - quarter + i64::from(u16::from_le_bytes(random)) * 2 * quarter / i64::from(u16::MAX)
    }
}

/// A worker at work.
pub struct Worker {
    context: Arc<Context>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Worker {
    /// Takes up what an earlier server left, and everything that comes.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn start(options: Options) -> Result<Self, herm_store::Error> {
        let context = Arc::new(Context {
            models: Models::new(options.providers),
            keeper: Keeper::new(options.sandboxes.clone()),
            sandboxes: options.sandboxes,
            fetches: Semaphore::new(provision::MAX_FETCHES),
            store: options.store,
            ids: options.ids,
            rng: options.rng,
            workspaces: options.workspaces,
            snapshots: options.snapshots,
            quotas: options.quotas,
            ways_out: options.ways_out,
            running: Running::default(),
            event_retention_days: options.event_retention_days,
        });
        let newest = context
            .store
            .transaction("release_leases", |tx| {
                Box::pin(async move {
                    idempotent_requests::release_all(tx).await?;
                    connections::end_all(tx).await?;
                    queue::release_all(tx).await?;
                    Ok::<_, herm_store::Error>((messages::newest(tx).await?, runs::newest(tx).await?))
                })
            })
            .await?;
        // Messages and runs are read in the order of their ids, and the clock may have gone back since the last ones.
        newest.0.into_iter().for_each(|message_id| context.ids.resume_after(message_id));
        newest.1.into_iter().for_each(|run_id| context.ids.resume_after(run_id));
        let stop = CancellationToken::new();
        let dispatcher = tokio::spawn(dispatch::run(Arc::clone(&context), stop.clone()));
        let nudged = tokio::spawn(dispatch::hear_nudges(Arc::clone(&context), stop.clone()));
        let (idle_context, idle_stop) = (Arc::clone(&context), stop.clone());
        let idle = tokio::spawn(async move { idle_context.keeper.stop_idle_until(idle_stop).await });
        let sweeper = tokio::spawn(retention::run(Arc::clone(&context), stop.clone()));
        Ok(Self { context, stop, tasks: vec![dispatcher, nudged, idle, sweeper] })
    }

    /// Claims nothing more, and gives the runs at work until `limit` to end. What is left then is cut off where it
    /// stands; the next worker goes on from there, and finds its sandboxes still alive.
    pub async fn stop(self, limit: Duration) {
        self.stop.cancel();
        for task in self.tasks {
            // A task that panicked has nothing left to be waited for.
            let _ = task.await;
        }
        if self.context.running.wait_until_none(limit).await {
            self.context.keeper.stop_all().await;
        } else {
            self.context.running.cancel_all();
            self.context.running.wait_until_none(limit).await;
        }
        self.context.ways_out.close().await;
    }
}
