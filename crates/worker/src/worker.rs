//! Starts and stops the worker.

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

use crate::context::{Context, MAX_IMAGE_FETCHES};
use crate::egress::EgressService;
use crate::models::Models;
use crate::sandboxes::pool::SandboxPool;
use crate::{dispatch, sweeps};

/// Dependencies and settings of a [`Worker`].
pub struct Options {
    pub store: Store,
    pub ids: IdSource,
    pub rng: Arc<dyn Rng>,
    pub providers: Providers,
    pub sandboxes: Sandboxes,
    pub workspaces: Workspaces,
    /// The storage for the snapshots of deleted deployments.
    pub snapshots: Snapshots,
    /// Enforces the disk quotas of workspaces.
    pub quotas: Quotas,
    /// The service that supplies the egress proxy with policies. [`Worker::stop`] closes it.
    pub egress_service: EgressService,
    /// The number of days for which events are retained. If `None`, events are retained until their deployment is
    /// deleted.
    pub event_retention_days: Option<u32>,
}

/// A handle to a running worker.
pub struct Worker {
    context: Arc<Context>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Worker {
    /// Releases the leases of a previous server process, and starts the worker's tasks. They resume the interrupted
    /// work and process new work.
    ///
    /// # Errors
    /// Fails if the database cannot be reached.
    pub async fn start(options: Options) -> Result<Self, herm_store::Error> {
        let context = Arc::new(Context {
            models: Models::new(options.providers),
            sandbox_pool: SandboxPool::new(options.sandboxes.clone()),
            sandboxes: options.sandboxes,
            image_fetches: Semaphore::new(MAX_IMAGE_FETCHES),
            store: options.store,
            ids: options.ids,
            rng: options.rng,
            workspaces: options.workspaces,
            snapshots: options.snapshots,
            quotas: options.quotas,
            egress_service: options.egress_service,
            running: Arc::default(),
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
        // Ids contain the time and determine the order of messages and runs. The clock may have been set back since the
        // last start, so new ids continue after the newest stored ones.
        newest.0.into_iter().for_each(|message_id| context.ids.resume_after(message_id));
        newest.1.into_iter().for_each(|run_id| context.ids.resume_after(run_id));
        let stop = CancellationToken::new();
        let dispatcher = tokio::spawn(dispatch::run(Arc::clone(&context), stop.clone()));
        let forwarder =
            tokio::spawn(dispatch::forward_change_notifications(Arc::clone(&context), stop.clone()));
        let (idle_context, idle_stop) = (Arc::clone(&context), stop.clone());
        let idle = tokio::spawn(async move { idle_context.sandbox_pool.stop_idle_until(idle_stop).await });
        let sweeper = tokio::spawn(sweeps::run(Arc::clone(&context), stop.clone()));
        Ok(Self { context, stop, tasks: vec![dispatcher, forwarder, idle, sweeper] })
    }

    /// Stops claiming work items, and waits up to `limit` for running items to end. If all items end in time, all
    /// sandboxes are stopped. Otherwise the remaining items are aborted but the sandboxes keep running, so that the
    /// next server process can resume the items.
    pub async fn stop(self, limit: Duration) {
        self.stop.cancel();
        for task in self.tasks {
            // This fails only if the task has panicked, and then there is nothing left to wait for.
            let _ = task.await;
        }
        if self.context.running.wait_until_none(limit).await {
            self.context.sandbox_pool.stop_all().await;
        } else {
            self.context.running.cancel_all();
            self.context.running.wait_until_none(limit).await;
        }
        self.context.egress_service.close().await;
    }
}
