//! Notifications within one server process: committed events, wake-ups for new work items, and changed runs.
//!
//! All notifications are hints, and losing one loses no data. A subscriber that misses an event number, falls behind,
//! or finds its channel closed reads the event log. Workers also poll the queue periodically.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use herm_types::event::{EventFilter, StoredEvent};
use herm_types::{DeploymentId, RunId};
use tokio::sync::{Notify, broadcast};

use crate::subscriber::{BACKLOG, Channel, Subscriber};

/// The hub of all notifications of a server process. Clones share the same hub.
#[derive(Clone, Default)]
pub struct Feed {
    channels: Arc<Mutex<HashMap<DeploymentId, Channel>>>,
    work: Arc<Notify>,
    changed_runs: ChangedRuns,
}

/// The broadcast channel for change notifications. Each notification is the id of a run that was changed by a task
/// other than the one that executes the run.
#[derive(Clone)]
struct ChangedRuns(broadcast::Sender<RunId>);

impl Default for ChangedRuns {
    fn default() -> Self {
        Self(broadcast::channel(BACKLOG).0)
    }
}

impl Feed {
    /// Tells the task that executes this run that another task has changed the run. Must be called after the commit.
    pub fn run_changed(&self, run_id: RunId) {
        // Sending fails only if there is no receiver, and therefore no task that executes the run. The error can be
        // ignored, because the worker that claims the run later reads the new state.
        let _ = self.changed_runs.0.send(run_id);
    }

    /// Subscribes to the change notifications for all runs, beginning with the next one.
    pub fn changed_runs(&self) -> broadcast::Receiver<RunId> {
        self.changed_runs.0.subscribe()
    }

    /// Subscribes to all events of a deployment that are committed from now on.
    ///
    /// Only events that match the filter wake the subscriber. The subscriber also receives all other events, so that it
    /// can detect gaps in the sequence of event numbers.
    pub fn subscribe(&self, deployment_id: DeploymentId, filter: EventFilter) -> Subscriber {
        let mut channels = self.channels();
        if channels.len().is_power_of_two() {
            // Removes the channels without subscribers. Doing this only when the number of channels is a power of two
            // keeps the amortized cost of a subscription constant.
            channels.retain(|_, channel| channel.has_subscribers());
        }
        channels.entry(deployment_id).or_default().subscribe(filter)
    }

    /// Closes a deployment's channel. Called when it is unknown whether a commit succeeded. The subscribers then
    /// subscribe again and read the event log.
    pub fn close_channel(&self, deployment_id: DeploymentId) {
        let closed = self.channels().remove(&deployment_id);
        drop(closed);
    }

    /// Waits for the next wake-up, which announces that the queue may have due work. Returns at once if there was a
    /// wake-up since the previous call.
    pub async fn work_added(&self) {
        self.work.notified().await;
    }

    pub(crate) fn announce_work(&self) {
        #[cfg(feature = "failpoints")]
        if crate::failpoint::hints_are_lost() {
            return;
        }
        self.work.notify_one();
    }

    /// Delivers the events of a committed transaction to the subscribers of their deployments.
    pub(crate) fn publish(&self, events: Vec<(DeploymentId, StoredEvent)>) {
        if events.is_empty() {
            return;
        }
        let events: Vec<_> = events.into_iter().map(|(id, event)| (id, Arc::new(event))).collect();
        let mut channels = self.channels();
        for of_one in events.chunk_by(|(left, _), (right, _)| left == right) {
            let Some((deployment_id, _)) = of_one.first() else { continue };
            if let Some(channel) = channels.get_mut(deployment_id)
                && !channel.publish(&of_one.iter().map(|(_, event)| event))
            {
                channels.remove(deployment_id);
            }
        }
    }

    fn channels(&self) -> MutexGuard<'_, HashMap<DeploymentId, Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
