//! Follows a deployment's stream from its start, across every break, and says what has become of its runs.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use herm_testkit::events::Event;
use tokio::sync::watch;

use super::place::Place;
use crate::reader::{Reader, is_end};

pub(super) struct Follower<'a> {
    place: &'a Place,
    deployment_id: String,
    known: Mutex<Known>,
    /// How many events were read.
    read: watch::Sender<usize>,
    /// Nothing more will come: the deployment is gone, or all of it was read.
    is_done: watch::Sender<bool>,
}

#[derive(Default)]
struct Known {
    ended: HashMap<String, String>,
    /// Questions of each run that are not answered yet.
    asked: HashMap<String, Vec<String>>,
    /// What was said so far of the messages that are under way.
    said: HashMap<String, String>,
}

/// What comes next of a run.
pub(super) enum Next {
    Ended,
    /// It waits for an answer to this request.
    Asked(String),
    /// It is gone with its deployment.
    Gone,
}

impl<'a> Follower<'a> {
    pub(super) fn new(place: &'a Place, deployment_id: &str) -> Self {
        Self {
            place,
            deployment_id: deployment_id.to_owned(),
            known: Mutex::default(),
            read: watch::Sender::new(0),
            is_done: watch::Sender::new(false),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads until it is told that nothing more will come; gives all that it has read.
    pub(super) async fn follow(&self) -> Vec<Event> {
        let mut reader = Reader::from_the_start(&self.deployment_id);
        let mut done = self.is_done.subscribe();
        loop {
            let read = async {
                let client = self.place.client().await;
                reader.try_until(&client, |event| self.note(event)).await
            };
            tokio::select! {
                biased;
                _ = done.wait_for(|is_done| *is_done) => return reader.seen,
                _ = read => {}
            }
        }
    }

    /// Notes what an event says; there is none after which reading ends.
    fn note(&self, event: &Event) -> bool {
        let text = |key: &str| event.data[key].as_str().unwrap_or_default().to_owned();
        let mut known = self.known();
        match event.name.as_str() {
            "run_status" if is_end(event, &text("run_id")) => {
                known.ended.insert(text("run_id"), text("status"));
            }
            "steering_request" => {
                known.asked.entry(text("run_id")).or_default().push(text("steering_id"));
            }
            "token" => {
                let said = known.said.entry(text("message_id")).or_default();
                said.push_str(&text("delta"));
                self.place.script.is_read(said);
            }
            "message" => {
                known.said.remove(&text("message_id"));
            }
            _ => {}
        }
        drop(known);
        self.read.send_modify(|count| *count += 1);
        self.place.events.send_modify(|count| *count += 1);
        false
    }

    /// Waits until a run ends, or asks.
    pub(super) async fn next_of(&self, run_id: &str) -> Next {
        let path = format!("/v1/deployments/{}/runs/{run_id}", self.deployment_id);
        let waiting = || self.place.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting().insert(path.clone());
        let next = self.until_next_of(run_id).await;
        waiting().remove(&path);
        next
    }

    async fn until_next_of(&self, run_id: &str) -> Next {
        let (mut read, mut done) = (self.read.subscribe(), self.is_done.subscribe());
        loop {
            {
                let mut known = self.known();
                if known.ended.contains_key(run_id) {
                    return Next::Ended;
                }
                if let Some(steering_id) = known.asked.get_mut(run_id).and_then(Vec::pop) {
                    return Next::Asked(steering_id);
                }
            }
            tokio::select! {
                _ = read.changed() => {}
                _ = done.wait_for(|is_done| *is_done) => return Next::Gone,
            }
        }
    }

    /// Waits until so many events were read.
    pub(super) async fn has_read(&self, count: usize) {
        let mut read = self.read.subscribe();
        // The sender is held here, so the waits cannot fail.
        read.wait_for(|read| *read >= count).await.unwrap();
    }

    /// Ends the reading.
    pub(super) fn is_done(&self) {
        self.is_done.send_replace(true);
    }
}
