//! Hints within one server: which events were just committed, that there is work, that a run was changed.
//!
//! A subscriber that finds a hole in the sequence, fell behind, or whose channel was closed reads the log; a worker also
//! looks by timer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use herm_types::event::StoredEvent;
use herm_types::{DeploymentId, RunId};
use tokio::sync::{Notify, broadcast};

/// Events a subscriber may be behind before it has to read the log again.
const SUBSCRIBER_BACKLOG: usize = 256;

type Channels = HashMap<DeploymentId, broadcast::Sender<Arc<StoredEvent>>>;

/// The hub of hints; cheap to clone.
#[derive(Clone, Default)]
pub struct Feed {
    channels: Arc<Mutex<Channels>>,
    work: Arc<Notify>,
    nudges: Nudges,
}

/// Runs whose state was changed from outside.
#[derive(Clone)]
struct Nudges(broadcast::Sender<RunId>);

impl Default for Nudges {
    fn default() -> Self {
        Self(broadcast::channel(SUBSCRIBER_BACKLOG).0)
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

    /// Hears every event of the deployment that is committed from now on.
    pub fn subscribe(&self, deployment_id: DeploymentId) -> broadcast::Receiver<Arc<StoredEvent>> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if channels.len().is_power_of_two() {
            // Where nobody listens any more the channel goes; now and then is often enough.
            channels.retain(|_, channel| channel.receiver_count() > 0);
        }
        channels.entry(deployment_id).or_insert_with(|| broadcast::channel(SUBSCRIBER_BACKLOG).0).subscribe()
    }

    /// Says that events of the deployment may have been committed, or not. Its channel closes, so that who hears it
    /// subscribes anew and reads the log.
    pub fn doubt(&self, deployment_id: DeploymentId) {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).remove(&deployment_id);
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

    pub(crate) fn publish(&self, events: Vec<(DeploymentId, StoredEvent)>) {
        if events.is_empty() {
            return;
        }
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        for (deployment_id, event) in events {
            if let Some(channel) = channels.get(&deployment_id)
                && channel.send(Arc::new(event)).is_err()
            {
                channels.remove(&deployment_id);
            }
        }
    }
}
