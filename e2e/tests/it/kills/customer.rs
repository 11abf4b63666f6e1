//! A customer of the load test: one deployment, and the clients that send it messages. Each client uses one thread
//! after another.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::load_test::LoadTest;
use super::model_script;
use super::run_tracker::{RunProgress, RunTracker};
use crate::history::seeded_random::SeededRandom;
use crate::history::{AcknowledgedMessage, DeploymentHistory, markers};
use crate::world::text;

/// The maximum number of messages that a client sends on a thread before it creates another one. Answers to the agent's
/// questions and the final probe message do not count.
const MESSAGES_PER_THREAD: u64 = 6;
/// The percentage of messages after which the client sends the next message without waiting for the end of the run, so
/// that messages also arrive during runs.
const RACING_PERCENT: u64 = 25;
/// The percentage of messages after which the client cancels the run.
const CANCELLED_PERCENT: u64 = 10;
/// The percentage of the agent's questions that the client answers by sending a message to the thread. It answers all
/// others through the steering endpoint.
const ANSWERED_BY_MESSAGE_PERCENT: u64 = 30;

/// A thread, with the messages that clients sent to it and that the server acknowledged.
pub(super) struct Thread {
    pub(super) thread_id: String,
    pub(super) acknowledged: Vec<AcknowledgedMessage>,
}

pub(super) struct Customer<'a> {
    test: &'a LoadTest,
    name: String,
    pub(super) deployment_id: String,
    pub(super) path: String,
    pub(super) has_sandbox: bool,
    pub(super) tracker: RunTracker<'a>,
}

impl<'a> Customer<'a> {
    pub(super) async fn new(test: &'a LoadTest, name: String, model: &str, has_sandbox: bool) -> Self {
        let sandbox = if has_sandbox { json!({"type": "local"}) } else { json!({"enabled": false}) };
        let body = json!({
            "customer_id": name, "name": "Ada", "system_prompt": "Be brief.", "model": model, "sandbox": sandbox,
        });
        let created = test.post("/v1/deployments", &format!("create.{name}"), &body).await;
        assert_eq!(created.status, 201, "{}", created.text());
        let deployment_id = text(&created.json(), "deployment_id");
        let tracker = RunTracker::new(test, &deployment_id);
        let path = format!("/v1/deployments/{deployment_id}");
        Self { test, name, deployment_id, path, has_sandbox, tracker }
    }

    /// Creates and uses one thread after another until the load ends. Returns the threads.
    pub(super) async fn send_messages(&self, client: u64) -> Vec<Thread> {
        let mut threads = Vec::new();
        while !self.test.is_load_over() {
            threads.extend(self.use_thread(&format!("{client}.{}", threads.len())).await);
        }
        threads
    }

    /// Creates a thread and sends messages to it. After all its runs have ended, sends a last message, the probe, to
    /// find out which history the model receives. Returns `None` if the deployment is deleted meanwhile.
    pub(super) async fn use_thread(&self, thread: &str) -> Option<Thread> {
        let thread = format!("{}.{thread}", self.name);
        let mut random = SeededRandom::with_label(self.test.seed, &format!("client {thread}"));
        let mut acknowledged: Vec<AcknowledgedMessage> = Vec::new();
        for number in 0..MESSAGES_PER_THREAD {
            if number > 0 && self.test.is_load_over() {
                break;
            }
            let name = format!("{thread}.{number}");
            let to = acknowledged.last().map_or("new", |sent| &sent.thread_id);
            let sent = self.send(to, &name).await?;
            let run_id = sent.run_id.clone();
            acknowledged.push(sent);
            if random.percent(CANCELLED_PERCENT) {
                let path = format!("{}/runs/{run_id}/cancel", self.path);
                self.test.post(&path, &format!("cancel.{name}"), &json!({})).await;
            }
            if !random.percent(RACING_PERCENT) {
                self.answer_until_ended(&run_id, &mut acknowledged).await?;
            }
        }
        let mut ended = 0;
        // Waits until all runs have ended. The list of acknowledged messages may grow meanwhile: an answer that arrives
        // after the end of its run starts another run.
        while let Some(sent) = acknowledged.get(ended).cloned() {
            self.answer_until_ended(&sent.run_id, &mut acknowledged).await?;
            ended += 1;
        }
        let thread_id = acknowledged.last()?.thread_id.clone();
        let probe = self.send(&thread_id, &model_script::probe_name(&thread)).await?;
        self.answer_until_ended(&probe.run_id, &mut acknowledged).await?;
        acknowledged.push(probe);
        Some(Thread { thread_id, acknowledged })
    }

    /// Sends a message to a thread. Returns `None` if the deployment has been deleted.
    pub(super) async fn send(&self, thread_id: &str, name: &str) -> Option<AcknowledgedMessage> {
        let body = json!({"content": markers::marked_text(name), "thread_id": thread_id});
        let sent = self.test.post(&format!("{}/messages", self.path), &format!("send.{name}"), &body).await;
        AcknowledgedMessage::from_response(&sent, name)
    }

    /// Answers the run's questions until the run ends. Some answers are sent as messages; these are added to
    /// `acknowledged`. Returns `None` if the deployment is deleted meanwhile.
    async fn answer_until_ended(
        &self,
        run_id: &str,
        acknowledged: &mut Vec<AcknowledgedMessage>,
    ) -> Option<()> {
        loop {
            match self.tracker.wait_for_progress(run_id).await {
                RunProgress::Ended => return Some(()),
                RunProgress::Deleted => return None,
                RunProgress::Question(steering_id) if self.answers_by_message(&steering_id) => {
                    let sent = acknowledged.last()?.clone();
                    let name = format!("{}.answer", sent.name);
                    acknowledged.push(self.send(&sent.thread_id, &name).await?);
                    self.test.answered_questions.fetch_add(1, Ordering::SeqCst);
                }
                RunProgress::Question(steering_id) => {
                    let body = json!({"decision": "answer", "message": "Go on."});
                    let path = format!("{}/steering/{steering_id}", self.path);
                    let response = self.test.post(&path, &format!("answer.{steering_id}"), &body).await;
                    self.test
                        .answered_questions
                        .fetch_add(u64::from(response.status == 200), Ordering::SeqCst);
                }
            }
        }
    }

    fn answers_by_message(&self, steering_id: &str) -> bool {
        SeededRandom::with_label(self.test.seed, steering_id).percent(ANSWERED_BY_MESSAGE_PERCENT)
    }

    /// Reads the deployment's stored runs and events after the last injected failure. Waits until the run tracker,
    /// which reads the event stream, has received all these events. Then stops the tracker.
    pub(super) async fn read_final_state(&self) -> DeploymentHistory {
        let runs = self.test.list(&format!("{}/runs?limit=100", self.path)).await;
        let mut events = self.test.list(&format!("{}/events?after=evt_0&limit=100", self.path)).await;
        for event in &mut events {
            // Removes `created_at`, which streamed events do not have, so that stored and streamed events can be
            // compared.
            event.as_object_mut().unwrap().retain(|key, _| ["id", "event", "data"].contains(&key.as_str()));
        }
        self.tracker.wait_for_events(events.len()).await;
        self.tracker.stop();
        DeploymentHistory { runs, events, ..DeploymentHistory::default() }
    }
}
