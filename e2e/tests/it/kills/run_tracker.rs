//! Reads a deployment's event stream from its first event, resumes it after every interruption, and records the
//! progress of the deployment's runs.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use herm_testkit::events::Event;
use tokio::sync::watch;

use super::load_test::LoadTest;
use crate::reader::{Reader, is_end};

pub(super) struct RunTracker<'a> {
    test: &'a LoadTest,
    deployment_id: String,
    states: Mutex<RunStates>,
    /// The number of events read so far from this deployment's stream.
    events_read: watch::Sender<usize>,
    /// True once reading must stop, because the deployment is deleted or all its events have been read.
    is_stopped: watch::Sender<bool>,
}

#[derive(Default)]
struct RunStates {
    /// The final status of each ended run, by run id.
    ended: HashMap<String, String>,
    /// The ids of unanswered steering requests, by run id.
    open_requests: HashMap<String, Vec<String>>,
    /// The text received so far of each unfinished message, by message id.
    partial_texts: HashMap<String, String>,
}

/// The reason why a client's wait for a run has ended.
pub(super) enum RunProgress {
    Ended,
    /// The run asked a question. The value is the id of the steering request.
    Question(String),
    /// The run no longer exists, because its deployment was deleted.
    Deleted,
}

impl<'a> RunTracker<'a> {
    pub(super) fn new(test: &'a LoadTest, deployment_id: &str) -> Self {
        Self {
            test,
            deployment_id: deployment_id.to_owned(),
            states: Mutex::default(),
            events_read: watch::Sender::new(0),
            is_stopped: watch::Sender::new(false),
        }
    }

    fn states(&self) -> MutexGuard<'_, RunStates> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the event stream until [`Self::stop`] is called. Returns all events read.
    pub(super) async fn read_stream(&self) -> Vec<Event> {
        let mut reader = Reader::from_the_start(&self.deployment_id);
        let mut stopped = self.is_stopped.subscribe();
        loop {
            let read = async {
                let client = self.test.client().await;
                reader.try_until(&client, |event| self.record(event)).await
            };
            tokio::select! {
                biased;
                _ = stopped.wait_for(|is_stopped| *is_stopped) => return reader.seen,
                _ = read => {}
            }
        }
    }

    /// Records an event. Always returns false, so that the reader continues with the next event.
    fn record(&self, event: &Event) -> bool {
        let text = |key: &str| event.data[key].as_str().unwrap_or_default().to_owned();
        let mut states = self.states();
        match event.name.as_str() {
            "run_status" if is_end(event, &text("run_id")) => {
                states.ended.insert(text("run_id"), text("status"));
            }
            "steering_request" => {
                states.open_requests.entry(text("run_id")).or_default().push(text("steering_id"));
            }
            "token" => {
                let text_so_far = states.partial_texts.entry(text("message_id")).or_default();
                text_so_far.push_str(&text("delta"));
                self.test.model_script.open_gate_of(text_so_far);
            }
            "message" => {
                states.partial_texts.remove(&text("message_id"));
            }
            _ => {}
        }
        drop(states);
        self.events_read.send_modify(|count| *count += 1);
        self.test.events_read.send_modify(|count| *count += 1);
        false
    }

    /// Waits until the run ends, asks a question or is deleted.
    pub(super) async fn wait_for_progress(&self, run_id: &str) -> RunProgress {
        let path = format!("/v1/deployments/{}/runs/{run_id}", self.deployment_id);
        let awaited_runs = || self.test.awaited_runs.lock().unwrap_or_else(PoisonError::into_inner);
        awaited_runs().insert(path.clone());
        let progress = self.next_progress(run_id).await;
        awaited_runs().remove(&path);
        progress
    }

    async fn next_progress(&self, run_id: &str) -> RunProgress {
        let (mut events_read, mut stopped) = (self.events_read.subscribe(), self.is_stopped.subscribe());
        loop {
            {
                let mut states = self.states();
                if states.ended.contains_key(run_id) {
                    return RunProgress::Ended;
                }
                if let Some(steering_id) = states.open_requests.get_mut(run_id).and_then(Vec::pop) {
                    return RunProgress::Question(steering_id);
                }
            }
            tokio::select! {
                _ = events_read.changed() => {}
                _ = stopped.wait_for(|is_stopped| *is_stopped) => return RunProgress::Deleted,
            }
        }
    }

    /// Waits until `count` events of this deployment have been read.
    pub(super) async fn wait_for_events(&self, count: usize) {
        let mut events_read = self.events_read.subscribe();
        // This cannot fail: `wait_for` fails only if the sender is dropped, and `self` owns the sender.
        events_read.wait_for(|events_read| *events_read >= count).await.unwrap();
    }

    /// Stops the tracker: [`Self::read_stream`] and all pending calls of [`Self::wait_for_progress`] return.
    pub(super) fn stop(&self) {
        self.is_stopped.send_replace(true);
    }
}
