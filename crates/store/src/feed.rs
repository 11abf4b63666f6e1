//! Hints within one server: which events were just committed, that there is work, that a run was changed.
//!
//! A subscriber that finds a hole in the sequence, fell behind, or whose channel was closed reads the log; a worker also
//! looks by timer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use herm_types::event::{EventFilter, StoredEvent};
use herm_types::{DeploymentId, RunId};
use tokio::sync::{Notify, broadcast};

use crate::listener::{BACKLOG, Channel, Listener};

/// The hub of hints; cheap to clone.
#[derive(Clone, Default)]
pub struct Feed {
    channels: Arc<Mutex<HashMap<DeploymentId, Channel>>>,
    work: Arc<Notify>,
    nudges: Nudges,
}

/// Runs whose state was changed from outside.
#[derive(Clone)]
struct Nudges(broadcast::Sender<RunId>);

impl Default for Nudges {
    fn default() -> Self {
        Self(broadcast::channel(BACKLOG).0)
    }
}

impl Feed {
    /// Says that a run's state was changed by somebody who does not have it in hand; after the commit.
    pub fn nudge(&self, run_id: RunId) {
        // With nobody to hear it, whoever takes the run up reads its state anyway.
        let _ = self.nudges.0.send(run_id);
    }

    /// Hears every nudge from now on.
    pub fn nudges(&self) -> broadcast::Receiver<RunId> {
        self.nudges.0.subscribe()
    }

    /// Hears every event of the deployment that is committed from now on, also those that the filter does not want: by
    /// them a hole shows. It is woken for those that the filter wants.
    pub fn subscribe(&self, deployment_id: DeploymentId, filter: EventFilter) -> Listener {
        let mut channels = self.channels();
        if channels.len().is_power_of_two() {
            // Where nobody listens any more the channel goes; now and then is often enough.
            channels.retain(|_, channel| channel.has_listeners());
        }
        channels.entry(deployment_id).or_default().subscribe(filter)
    }

    /// Says that events of the deployment may have been committed, or not. Its channel closes, so that who hears it
    /// subscribes anew and reads the log.
    pub fn doubt(&self, deployment_id: DeploymentId) {
        let closed = self.channels().remove(&deployment_id);
        drop(closed);
    }

    /// Resolves when work may have been added since it was last awaited.
    pub async fn work_added(&self) {
        self.work.notified().await;
    }

    pub(crate) fn announce_work(&self) {
        #[cfg(feature = "fault-points")]
        if crate::fault::hints_are_lost() {
            return;
        }
        self.work.notify_one();
    }

    /// Tells of what one transaction committed.
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
