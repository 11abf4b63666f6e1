//! A deployment's clients: each has a message under way at all times, on one thread after the other.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::follower::{Follower, Next};
use super::place::Place;
use super::script;
use crate::history::dice::Dice;
use crate::history::{Acknowledged, OfDeployment, marks};
use crate::world::text;

/// Messages of a thread, after which another one is begun.
const MESSAGES: u64 = 6;
/// Of a hundred messages: those that are sent without waiting for the end of the run before.
const RACING: u64 = 25;
/// Of a hundred messages: those whose run is cancelled.
const CANCELLED: u64 = 10;
/// Of a hundred questions: those that are answered by a message.
const BY_MESSAGE: u64 = 30;

/// What was done on a thread.
pub(super) struct Thread {
    pub(super) thread_id: String,
    pub(super) acknowledged: Vec<Acknowledged>,
}

pub(super) struct Customer<'a> {
    place: &'a Place,
    name: String,
    pub(super) deployment_id: String,
    pub(super) path: String,
    pub(super) has_sandbox: bool,
    pub(super) follower: Follower<'a>,
}

impl<'a> Customer<'a> {
    pub(super) async fn new(place: &'a Place, name: String, model: &str, has_sandbox: bool) -> Self {
        let sandbox = if has_sandbox { json!({"type": "local"}) } else { json!({"enabled": false}) };
        let body = json!({
            "customer_id": name, "name": "Ada", "system_prompt": "Be brief.", "model": model, "sandbox": sandbox,
        });
        let made = place.post("/v1/deployments", &format!("create.{name}"), &body).await;
        assert_eq!(made.status, 201, "{}", made.text());
        let deployment_id = text(&made.json(), "deployment_id");
        let follower = Follower::new(place, &deployment_id);
        let path = format!("/v1/deployments/{deployment_id}");
        Self { place, name, deployment_id, path, has_sandbox, follower }
    }

    /// Talks on one thread after the other until all is over.
    pub(super) async fn talk(&self, client: u64) -> Vec<Thread> {
        let mut threads = Vec::new();
        while !self.place.is_over() {
            threads.extend(self.thread(&format!("{client}.{}", threads.len())).await);
        }
        threads
    }

    /// Leads a thread to its end, with a last message that is sent when all else has ended.
    pub(super) async fn thread(&self, thread: &str) -> Option<Thread> {
        let thread = format!("{}.{thread}", self.name);
        let mut dice = Dice::of(self.place.seed, &format!("client {thread}"));
        let mut acknowledged: Vec<Acknowledged> = Vec::new();
        for number in 0..MESSAGES {
            if number > 0 && self.place.is_over() {
                break;
            }
            let name = format!("{thread}.{number}");
            let to = acknowledged.last().map_or("new", |sent| &sent.thread_id);
            let sent = self.send(to, &name).await?;
            let run_id = sent.run_id.clone();
            acknowledged.push(sent);
            if dice.percent(CANCELLED) {
                let path = format!("{}/runs/{run_id}/cancel", self.path);
                self.place.post(&path, &format!("cancel.{name}"), &json!({})).await;
            }
            if !dice.percent(RACING) {
                self.until_ended(&run_id, &mut acknowledged).await?;
            }
        }
        let mut ended = 0;
        // An answer that comes too late makes a run more.
        while let Some(sent) = acknowledged.get(ended).cloned() {
            self.until_ended(&sent.run_id, &mut acknowledged).await?;
            ended += 1;
        }
        let thread_id = acknowledged.last()?.thread_id.clone();
        let probe = self.send(&thread_id, &script::probe(&thread)).await?;
        self.until_ended(&probe.run_id, &mut acknowledged).await?;
        acknowledged.push(probe);
        Some(Thread { thread_id, acknowledged })
    }

    /// `None` if the deployment is gone.
    pub(super) async fn send(&self, thread_id: &str, name: &str) -> Option<Acknowledged> {
        let body = json!({"content": marks::marked(name), "thread_id": thread_id});
        let sent = self.place.post(&format!("{}/messages", self.path), &format!("send.{name}"), &body).await;
        Acknowledged::read(&sent, name)
    }

    /// Answers what the run asks until it ends; `None` if the deployment does before. Answers by message are added to
    /// what was acknowledged on its thread.
    async fn until_ended(&self, run_id: &str, acknowledged: &mut Vec<Acknowledged>) -> Option<()> {
        loop {
            match self.follower.next_of(run_id).await {
                Next::Ended => return Some(()),
                Next::Gone => return None,
                Next::Asked(steering_id) if self.answers_by_message(&steering_id) => {
                    let sent = acknowledged.last()?.clone();
                    let name = format!("{}.answer", sent.name);
                    acknowledged.push(self.send(&sent.thread_id, &name).await?);
                    self.place.steered.fetch_add(1, Ordering::SeqCst);
                }
                Next::Asked(steering_id) => {
                    let body = json!({"decision": "answer", "message": "Go on."});
                    let path = format!("{}/steering/{steering_id}", self.path);
                    let answer = self.place.post(&path, &format!("answer.{steering_id}"), &body).await;
                    self.place.steered.fetch_add(u64::from(answer.status == 200), Ordering::SeqCst);
                }
            }
        }
    }

    fn answers_by_message(&self, steering_id: &str) -> bool {
        Dice::of(self.place.seed, steering_id).percent(BY_MESSAGE)
    }

    /// Reads everything when nothing goes wrong any more, and lets the reader come to the same end.
    pub(super) async fn look_back(&self) -> OfDeployment {
        let runs = self.place.list(&format!("{}/runs?limit=100", self.path)).await;
        let mut events = self.place.list(&format!("{}/events?after=evt_0&limit=100", self.path)).await;
        for event in &mut events {
            // A stream does not say when an event came.
            event.as_object_mut().unwrap().retain(|key, _| ["id", "event", "data"].contains(&key.as_str()));
        }
        self.follower.has_read(events.len()).await;
        self.follower.is_done();
        OfDeployment { runs, events, ..OfDeployment::default() }
    }
}
