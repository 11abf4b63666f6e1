//! The clients of the simulated servers. They repeat each request until it is answered.

use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use herm_store::{DatabaseClock, Store, queue};
use herm_testkit::client::Response;
use serde_json::{Value, json};

use crate::history::seeded_random::SeededRandom;
use crate::history::{AcknowledgedMessage, DeploymentHistory, History, markers};
use crate::person::{self, PersonAnswer};
use crate::simulation::Simulation;

/// The percentage of messages after which the client sends the next message without waiting for the end of the run.
const RACING_PERCENT: u64 = 60;
/// The percentage of messages whose run is cancelled.
const CANCELLED_PERCENT: u64 = 15;

/// A planned deletion of a deployment or thread happens once the servers have reached a random number of failpoints.
/// This constant is the exclusive upper limit of that number.
const MAX_FAILPOINTS_BEFORE_DELETION: u64 = 120;

/// A thread, with the messages that the client sent to it and that the server acknowledged.
struct Thread {
    thread_id: String,
    acknowledged: Vec<AcknowledgedMessage>,
}

/// A simulated customer, with one deployment and the clients that use it.
struct Customer<'a> {
    simulation: &'a Simulation,
    number: usize,
    path: String,
}

/// The threads of a customer, and the id of the additional thread that the customer deleted, if any.
type CustomerThreads = (Vec<Thread>, Option<String>);

/// Runs all clients until they are finished, then stops injecting failures and reads the final state.
pub(crate) async fn run_clients(simulation: &Simulation) -> History {
    let plan = &simulation.plan;
    let customers = join_all(plan.threads.iter().enumerate().map(|(number, threads)| async move {
        let customer = Customer::new(simulation, number).await;
        let remaining = join_all((0..*threads).map(|thread| customer.send_messages(thread)));
        let threads = async { tokio::join!(remaining, customer.delete_a_thread()) };
        let threads: CustomerThreads = if number < plan.deleted {
            let delete = async {
                customer.wait_for_deletion_time("delete").await;
                customer.delete(&customer.path).await;
            };
            tokio::join!(threads, delete).0
        } else {
            threads.await
        };
        (customer, threads)
    }));
    let mut customers = customers.await;
    customers.drain(..plan.deleted);
    let earlier_events = join_all(customers.iter().map(|(customer, _)| customer.events())).await;
    simulation.stop_failures();
    let mut history = History::default();
    for ((customer, threads), earlier_events) in customers.iter_mut().zip(earlier_events) {
        let deployment = customer.probe(std::mem::take(threads)).await;
        history.deployments.push(DeploymentHistory { earlier_events, ..deployment });
    }
    // Once the queue is empty, all data of deleted deployments and threads has been erased.
    history.queued_work_items = wait_for_empty_queue(simulation).await;
    for ((customer, _), deployment) in customers.iter().zip(&mut history.deployments) {
        deployment.runs = list(simulation, &format!("{}/runs?limit=100", customer.path)).await;
        deployment.events = customer.events().await;
    }
    history.command_starts = simulation.environment.machine.command_starts();
    history
}

impl<'a> Customer<'a> {
    async fn new(simulation: &'a Simulation, number: usize) -> Self {
        let body = json!({
            "customer_id": format!("customer {number}"), "name": "Ada", "system_prompt": "Be brief.",
            "model": "anthropic/simulated", "steering": simulation.plan.steering,
        });
        let created = post(simulation, "/v1/deployments", &format!("create.{number}"), &body).await;
        assert_eq!(created.status, 201, "{}", created.text());
        let created = created.json();
        Self { simulation, number, path: format!("/v1/deployments/{}", text(&created, "deployment_id")) }
    }

    /// Creates a thread and sends its messages one after another.
    async fn send_messages(&self, thread: u64) -> Thread {
        let name = |message: &dyn std::fmt::Display| format!("{}.{thread}.{message}", self.number);
        let mut random = SeededRandom::with_label(self.simulation.seed, &name(&"client"));
        let mut thread_id = None;
        let mut acknowledged = Vec::new();
        for number in 0..self.simulation.plan.messages {
            let name = name(&number);
            let to = thread_id.clone().unwrap_or_else(|| "new".to_owned());
            let Some(sent) = self.send(&to, &name).await else { break };
            thread_id = Some(sent.thread_id.clone());
            let run_id = sent.run_id.clone();
            acknowledged.push(sent);
            if random.percent(CANCELLED_PERCENT) {
                let path = format!("{}/runs/{run_id}/cancel", self.path);
                post(self.simulation, &path, &format!("cancel.{name}"), &json!({})).await;
            }
            if !random.percent(RACING_PERCENT) {
                self.answer_until_ended(&run_id, &mut acknowledged).await;
            }
        }
        Thread { thread_id: thread_id.unwrap_or_default(), acknowledged }
    }

    /// Sends a message. Returns `None` if the deployment was deleted.
    async fn send(&self, thread_id: &str, name: &str) -> Option<AcknowledgedMessage> {
        let body = json!({"content": markers::marked_text(name), "thread_id": thread_id});
        let sent =
            post(self.simulation, &format!("{}/messages", self.path), &format!("send.{name}"), &body).await;
        AcknowledgedMessage::from_response(&sent, name)
    }

    /// Creates a thread with an active run, deletes it and returns its id. Returns `None` if the plan deletes no
    /// threads, or if the deployment was deleted first.
    async fn delete_a_thread(&self) -> Option<String> {
        if !self.simulation.plan.deletes_threads {
            return None;
        }
        let name = format!("{}.erased", self.number);
        let sent = self.send("new", &name).await?;
        self.wait_for_deletion_time(&name).await;
        self.delete(&format!("{}/threads/{}", self.path, sent.thread_id)).await;
        Some(sent.thread_id)
    }

    /// Waits until the run has ended or the deployment is deleted, and answers the run's steering requests. Answers
    /// that are sent as messages are added to `acknowledged`.
    async fn answer_until_ended(&self, run_id: &str, acknowledged: &mut Vec<AcknowledgedMessage>) {
        let path = format!("{}/runs/{run_id}", self.path);
        loop {
            let Some(run) = get(self.simulation, &path).await else { return };
            if !run["ended_at"].is_null() {
                return;
            }
            if run["status"] == "waiting_on_human" {
                self.answer(run_id, acknowledged).await;
            }
        }
    }

    /// Answers the run's pending steering requests, except those that the simulated person lets expire. Answers that
    /// are sent as messages are added to `acknowledged`.
    async fn answer(&self, run_id: &str, acknowledged: &mut Vec<AcknowledgedMessage>) {
        let pending =
            list(self.simulation, &format!("{}/steering?status=pending&limit=100", self.path)).await;
        for request in pending.into_iter().filter(|request| request["run_id"] == run_id) {
            match person::choose_answer(self.simulation.seed, &request) {
                PersonAnswer::None => {}
                PersonAnswer::Message => {
                    let thread = acknowledged.first().map_or("probe", |sent| &sent.name);
                    let name = format!("{thread}.answer{}", acknowledged.len());
                    acknowledged.extend(self.send(&text(&request, "thread_id"), &name).await);
                }
                PersonAnswer::Endpoint(body) => {
                    let steering_id = text(&request, "steering_id");
                    let path = format!("{}/steering/{steering_id}", self.path);
                    post(self.simulation, &path, &format!("decide.{steering_id}"), &body).await;
                }
            }
        }
    }

    /// Waits until the servers have reached a certain number of failpoints. The seed and the label determine this
    /// number.
    async fn wait_for_deletion_time(&self, label: &str) {
        let failpoints =
            SeededRandom::with_label(self.simulation.seed, label).below(MAX_FAILPOINTS_BEFORE_DELETION);
        while self.simulation.environment.reached_failpoints.load(Ordering::SeqCst) < failpoints {
            // While this request waits for its response, the server continues to work and reaches failpoints.
            get(self.simulation, &self.path).await;
        }
    }

    async fn delete(&self, path: &str) {
        loop {
            if let Ok(response) = self.simulation.client().await.delete(path).await
                && (response.status.is_success() || response.status == 404)
            {
                return;
            }
        }
    }

    async fn events(&self) -> Vec<Value> {
        list(self.simulation, &format!("{}/events?after=evt_0&limit=100", self.path)).await
    }

    /// After the last injected failure, sends one more message, the probe, on each thread. Records the model's input
    /// for each probe in the deployment's history.
    async fn probe(&self, (threads, erased): CustomerThreads) -> DeploymentHistory {
        let mut deployment = DeploymentHistory {
            erased_threads: erased.into_iter().collect(),
            ..DeploymentHistory::default()
        };
        for (number, mut thread) in threads.into_iter().enumerate() {
            let mut ended = 0;
            // Waits until all runs have ended. The list of acknowledged messages may grow meanwhile: an answer that
            // arrives after the end of its run starts another run.
            while let Some(sent) = thread.acknowledged.get(ended).cloned() {
                self.answer_until_ended(&sent.run_id, &mut thread.acknowledged).await;
                ended += 1;
            }
            let name = format!("probe.{}.{number}", self.number);
            self.simulation.model.record(true);
            let probe = self.send(&thread.thread_id, &name).await.expect("the deployment was deleted");
            self.answer_until_ended(&probe.run_id, &mut thread.acknowledged).await;
            self.simulation.model.record(false);
            let requests = self.simulation.model.requests();
            let last =
                requests.iter().rev().find(|request| markers::user_messages(request.body()).contains(&name));
            let messages = last.map(|request| markers::user_messages(request.body()));
            deployment.model_messages.insert(thread.thread_id.clone(), messages.unwrap_or_default());
            let answers = last.map(markers::answers).unwrap_or_default();
            if !answers.is_empty() {
                deployment.model_answers.insert(thread.thread_id, answers);
            }
            deployment.acknowledged.extend(thread.acknowledged);
            deployment.acknowledged.push(probe);
        }
        deployment
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("the response has no {key}: {value}")).to_owned()
}

/// Repeats a POST until it succeeds or fails with a permanent error.
async fn post(simulation: &Simulation, path: &str, key: &str, body: &Value) -> Response {
    loop {
        let client = simulation.client().await;
        let Ok(response) = client.post_once(path, key, body).await else { continue };
        // Two kinds of conflict require a retry: an earlier attempt is still in progress, or another attempt has taken
        // over the idempotency record.
        let message = response.json()["message"].as_str().unwrap_or_default().to_owned();
        let is_in_progress = message.contains("is in progress") || message.contains("took over");
        if response.status.is_success() || (response.status.is_client_error() && !is_in_progress) {
            return response;
        }
    }
}

/// Repeats a GET until the response is a success or a 404. Returns `None` for a 404.
async fn get(simulation: &Simulation, path: &str) -> Option<Value> {
    loop {
        match simulation.client().await.get_as(path, "application/json").await {
            Ok(response) if response.status.is_success() => return Some(response.json()),
            Ok(response) if response.status == 404 => return None,
            _ => {}
        }
    }
}

/// Returns the items of all pages of a list.
async fn list(simulation: &Simulation, path: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let Some(page) = get(simulation, &format!("{path}{cursor}")).await else { return all };
        all.extend(page["data"].as_array().into_iter().flatten().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

/// Polls the length of the queue until it is 0, and returns it. There is no time limit here: if the queue never becomes
/// empty, the test runner ends the test.
async fn wait_for_empty_queue(simulation: &Simulation) -> i64 {
    loop {
        // Reading the queue fails if a server is killed at this moment. The loop then reads it again.
        if let Ok(0) = queue_length(simulation).await {
            return 0;
        }
    }
}

async fn queue_length(simulation: &Simulation) -> Result<i64, herm_store::Error> {
    let store = Store::open(herm_store::Options {
        location: simulation.environment.location(),
        clock: simulation.environment.clock.clone(),
        database_clock: DatabaseClock::FromOptions,
        migrate: false,
        exclusive: false,
    })
    .await?;
    store.read("queued", |tx| Box::pin(queue::len(tx))).await
}
