//! The clients: they ask again until they are answered, and each request acts once.

use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use herm_store::{DatabaseClock, Store, queue};
use herm_testkit::client::Answer;
use serde_json::{Value, json};

use crate::history::dice::Dice;
use crate::history::{Acknowledged, History, OfDeployment, marks};
use crate::world::World;

/// Of a hundred messages: those that are sent without waiting for the end of the run before.
const RACING: u64 = 60;
/// Of a hundred messages: those whose run is cancelled.
const CANCELLED: u64 = 15;

/// Fault points before which a deployment is deleted that is to be.
const DELETED_BEFORE: u64 = 120;

/// What a thread's client did.
struct Thread {
    thread_id: String,
    acknowledged: Vec<Acknowledged>,
}

/// A deployment's clients.
struct Customer<'a> {
    world: &'a World,
    number: usize,
    path: String,
}

/// Leads a life to its end, and reads what is left of it.
pub(crate) async fn live(world: &World) -> History {
    let plan = &world.plan;
    let customers = join_all(plan.threads.iter().enumerate().map(|(number, threads)| async move {
        let customer = Customer::new(world, number).await;
        let talks = join_all((0..*threads).map(|thread| customer.talk(thread)));
        let threads = if number < plan.deleted {
            let (threads, ()) = tokio::join!(talks, customer.delete_in_the_middle());
            threads
        } else {
            talks.await
        };
        (customer, threads)
    }));
    let mut customers = customers.await;
    customers.drain(..plan.deleted);
    let before = join_all(customers.iter().map(|(customer, _)| customer.events())).await;
    world.calm();
    let mut history = History::default();
    for ((customer, threads), events_before) in customers.into_iter().zip(before) {
        history.deployments.push(customer.look_back(threads, events_before).await);
    }
    history.queued = queued(world).await;
    history.begun = world.shared.machine.begun();
    history
}

impl<'a> Customer<'a> {
    async fn new(world: &'a World, number: usize) -> Self {
        let body = json!({
            "customer_id": format!("customer {number}"), "name": "Ada", "system_prompt": "Be brief.",
            "model": "anthropic/simulated",
        });
        let made = post(world, "/v1/deployments", &format!("create.{number}"), &body).await;
        assert_eq!(made.status, 201, "{}", made.text());
        let made = made.json();
        Self { world, number, path: format!("/v1/deployments/{}", text(&made, "deployment_id")) }
    }

    /// Sends a thread's messages one after the other.
    async fn talk(&self, thread: u64) -> Thread {
        let name = |message: &dyn std::fmt::Display| format!("{}.{thread}.{message}", self.number);
        let mut dice = Dice::of(self.world.seed, &name(&"client"));
        let mut thread_id = None;
        let mut acknowledged = Vec::new();
        for number in 0..self.world.plan.messages {
            let name = name(&number);
            let to = thread_id.clone().unwrap_or_else(|| "new".to_owned());
            let Some(sent) = self.send(&to, &name).await else { break };
            thread_id = Some(sent.thread_id.clone());
            let run_id = sent.run_id.clone();
            acknowledged.push(sent);
            if dice.percent(CANCELLED) {
                let path = format!("{}/runs/{run_id}/cancel", self.path);
                post(self.world, &path, &format!("cancel.{name}"), &json!({})).await;
            }
            if !dice.percent(RACING) {
                self.until_ended(&run_id).await;
            }
        }
        Thread { thread_id: thread_id.unwrap_or_default(), acknowledged }
    }

    /// `None` if the deployment is gone.
    async fn send(&self, thread_id: &str, name: &str) -> Option<Acknowledged> {
        let body = json!({"content": marks::marked(name), "thread_id": thread_id});
        let sent = post(self.world, &format!("{}/messages", self.path), &format!("send.{name}"), &body).await;
        if sent.status == 404 {
            return None;
        }
        assert_eq!(sent.status, 202, "{}", sent.text());
        let sent = sent.json();
        let (thread_id, run_id) = (text(&sent, "thread_id"), text(&sent, "run_id"));
        Some(Acknowledged { thread_id, run_id, name: name.to_owned() })
    }

    /// Waits for the run's end, or the deployment's.
    async fn until_ended(&self, run_id: &str) {
        let path = format!("{}/runs/{run_id}", self.path);
        loop {
            let shown = get(self.world, &path).await;
            if shown.is_none_or(|run| !run["ended_at"].is_null()) {
                return;
            }
        }
    }

    /// Deletes it when the server has done a part of its work.
    async fn delete_in_the_middle(&self) {
        let at = Dice::of(self.world.seed, "delete").below(DELETED_BEFORE);
        while self.world.shared.reached.load(Ordering::SeqCst) < at {
            // Asked for as any client may, so that there is something to be done.
            get(self.world, &self.path).await;
        }
        loop {
            if let Ok(answer) = self.world.client().await.delete(&self.path).await
                && [200, 404].contains(&answer.status.as_u16())
            {
                return;
            }
        }
    }

    async fn events(&self) -> Vec<Value> {
        list(self.world, &format!("{}/events?after=evt_0&limit=100", self.path)).await
    }

    /// Asks each thread once more, when nothing goes wrong any more, and reads everything.
    async fn look_back(&self, threads: Vec<Thread>, events_before: Vec<Value>) -> OfDeployment {
        let mut of_it = OfDeployment { events_before, ..OfDeployment::default() };
        for (number, thread) in threads.into_iter().enumerate() {
            for message in &thread.acknowledged {
                self.until_ended(&message.run_id).await;
            }
            let name = format!("probe.{}.{number}", self.number);
            self.world.model.record(true);
            let probe = self.send(&thread.thread_id, &name).await.expect("it was not deleted");
            self.until_ended(&probe.run_id).await;
            self.world.model.record(false);
            let asked = self.world.model.requests();
            let heard = asked.iter().map(|request| marks::heard(request.body()));
            let heard = heard.rev().find(|heard| heard.contains(&name)).unwrap_or_default();
            of_it.heard.insert(thread.thread_id, heard);
            of_it.acknowledged.extend(thread.acknowledged);
            of_it.acknowledged.push(probe);
        }
        of_it.runs = list(self.world, &format!("{}/runs?limit=100", self.path)).await;
        of_it.events = self.events().await;
        of_it
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("there is no {key} in {value}")).to_owned()
}

/// Sends a request until it has an answer that would not be another the next time.
async fn post(world: &World, path: &str, key: &str, body: &Value) -> Answer {
    loop {
        let client = world.client().await;
        let Ok(answer) = client.post_once(path, key, body).await else { continue };
        // The same request under way, or one that took over from this one: both say to send it again.
        let told = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        let is_under_way = told.contains("is under way") || told.contains("took over");
        if answer.status.is_success() || (answer.status.is_client_error() && !is_under_way) {
            return answer;
        }
    }
}

/// Reads; `None` for what is gone.
async fn get(world: &World, path: &str) -> Option<Value> {
    loop {
        match world.client().await.get_as(path, "application/json").await {
            Ok(answer) if answer.status.is_success() => return Some(answer.json()),
            Ok(answer) if answer.status == 404 => return None,
            _ => {}
        }
    }
}

/// A list, from its first page to its last.
async fn list(world: &World, path: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let Some(page) = get(world, &format!("{path}{cursor}")).await else { return all };
        all.extend(page["data"].as_array().into_iter().flatten().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

/// Looks until the queue is empty, or the life hangs: what is torn down takes its time.
async fn queued(world: &World) -> i64 {
    loop {
        // A server that dies just now takes also this one along.
        if let Ok(0) = look_at_queue(world).await {
            return 0;
        }
    }
}

async fn look_at_queue(world: &World) -> Result<i64, herm_store::Error> {
    let store = Store::open(herm_store::Options {
        location: world.shared.location(),
        clock: world.shared.clock.clone(),
        database_clock: DatabaseClock::Given,
        migrate: false,
        exclusive: false,
    })
    .await?;
    store.read("queued", |tx| Box::pin(queue::len(tx))).await
}
