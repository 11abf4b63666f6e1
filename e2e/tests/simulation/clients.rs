//! The clients: they ask again until they are answered, and each request acts once.

use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use herm_store::{DatabaseClock, Store, queue};
use herm_testkit::client::Answer;
use serde_json::{Value, json};

use crate::history::dice::Dice;
use crate::history::{Acknowledged, History, OfDeployment, marks};
use crate::person::{self, Decision};
use crate::world::World;

/// Of a hundred messages: those that are sent without waiting for the end of the run before.
const RACING: u64 = 60;
/// Of a hundred messages: those whose run is cancelled.
const CANCELLED: u64 = 15;

/// Fault points before which a deployment or a thread is deleted that is to be.
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

/// What a customer did: threads that stay, and one that it deleted.
type Talks = (Vec<Thread>, Option<String>);

/// Leads a life to its end, and reads what is left of it.
pub(crate) async fn live(world: &World) -> History {
    let plan = &world.plan;
    let customers = join_all(plan.threads.iter().enumerate().map(|(number, threads)| async move {
        let customer = Customer::new(world, number).await;
        let talks = join_all((0..*threads).map(|thread| customer.talk(thread)));
        let talks = async { tokio::join!(talks, customer.talk_and_delete()) };
        let talks: Talks = if number < plan.deleted {
            let delete = async {
                customer.until_it_is_time_to("delete").await;
                customer.delete(&customer.path).await;
            };
            tokio::join!(talks, delete).0
        } else {
            talks.await
        };
        (customer, talks)
    }));
    let mut customers = customers.await;
    customers.drain(..plan.deleted);
    let before = join_all(customers.iter().map(|(customer, _)| customer.events())).await;
    world.calm();
    let mut history = History::default();
    for ((customer, talks), events_before) in customers.iter_mut().zip(before) {
        let of_it = customer.ask_once_more(std::mem::take(talks)).await;
        history.deployments.push(OfDeployment { events_before, ..of_it });
    }
    // What was deleted is erased by then.
    history.queued = queued(world).await;
    for ((customer, _), of_it) in customers.iter().zip(&mut history.deployments) {
        of_it.runs = list(world, &format!("{}/runs?limit=100", customer.path)).await;
        of_it.events = customer.events().await;
    }
    history.begun = world.shared.machine.begun();
    history
}

impl<'a> Customer<'a> {
    async fn new(world: &'a World, number: usize) -> Self {
        let body = json!({
            "customer_id": format!("customer {number}"), "name": "Ada", "system_prompt": "Be brief.",
            "model": "anthropic/simulated", "steering": world.plan.steering,
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
                self.until_ended(&run_id, &mut acknowledged).await;
            }
        }
        Thread { thread_id: thread_id.unwrap_or_default(), acknowledged }
    }

    /// `None` if the deployment is gone.
    async fn send(&self, thread_id: &str, name: &str) -> Option<Acknowledged> {
        let body = json!({"content": marks::marked(name), "thread_id": thread_id});
        let sent = post(self.world, &format!("{}/messages", self.path), &format!("send.{name}"), &body).await;
        Acknowledged::read(&sent, name)
    }

    /// Begins a thread and deletes it in the middle, if the plan says so; its id, unless the deployment was gone before.
    async fn talk_and_delete(&self) -> Option<String> {
        if !self.world.plan.deletes_threads {
            return None;
        }
        let name = format!("{}.erased", self.number);
        let sent = self.send("new", &name).await?;
        self.until_it_is_time_to(&name).await;
        self.delete(&format!("{}/threads/{}", self.path, sent.thread_id)).await;
        Some(sent.thread_id)
    }

    /// Waits for the run's end, or the deployment's. Answers what it asks; answers by message are added to what was
    /// acknowledged on its thread.
    async fn until_ended(&self, run_id: &str, acknowledged: &mut Vec<Acknowledged>) {
        let path = format!("{}/runs/{run_id}", self.path);
        loop {
            let Some(run) = get(self.world, &path).await else { return };
            if !run["ended_at"].is_null() {
                return;
            }
            if run["status"] == "waiting_on_human" {
                self.answer(run_id, acknowledged).await;
            }
        }
    }

    /// Decides about what a run asks now.
    async fn answer(&self, run_id: &str, acknowledged: &mut Vec<Acknowledged>) {
        let asked = list(self.world, &format!("{}/steering?status=pending&limit=100", self.path)).await;
        for request in asked.into_iter().filter(|request| request["run_id"] == run_id) {
            match person::decide(self.world.seed, &request) {
                Decision::None => {}
                Decision::ByMessage => {
                    let thread = acknowledged.first().map_or("probe", |sent| &sent.name);
                    let name = format!("{thread}.answer{}", acknowledged.len());
                    acknowledged.extend(self.send(&text(&request, "thread_id"), &name).await);
                }
                Decision::ByEndpoint(body) => {
                    let steering_id = text(&request, "steering_id");
                    let path = format!("{}/steering/{steering_id}", self.path);
                    post(self.world, &path, &format!("decide.{steering_id}"), &body).await;
                }
            }
        }
    }

    /// Waits until the server has done a part of its work.
    async fn until_it_is_time_to(&self, act: &str) {
        let at = Dice::of(self.world.seed, act).below(DELETED_BEFORE);
        while self.world.shared.reached.load(Ordering::SeqCst) < at {
            // Asked for as any client may, so that there is something to be done.
            get(self.world, &self.path).await;
        }
    }

    async fn delete(&self, path: &str) {
        loop {
            if let Ok(answer) = self.world.client().await.delete(path).await
                && (answer.status.is_success() || answer.status == 404)
            {
                return;
            }
        }
    }

    async fn events(&self) -> Vec<Value> {
        list(self.world, &format!("{}/events?after=evt_0&limit=100", self.path)).await
    }

    /// Asks each thread once more, when nothing goes wrong any more.
    async fn ask_once_more(&self, (threads, erased): Talks) -> OfDeployment {
        let mut of_it = OfDeployment { erased: erased.into_iter().collect(), ..OfDeployment::default() };
        for (number, mut thread) in threads.into_iter().enumerate() {
            let mut ended = 0;
            // An answer that comes too late makes a run more.
            while let Some(sent) = thread.acknowledged.get(ended).cloned() {
                self.until_ended(&sent.run_id, &mut thread.acknowledged).await;
                ended += 1;
            }
            let name = format!("probe.{}.{number}", self.number);
            self.world.model.record(true);
            let probe = self.send(&thread.thread_id, &name).await.expect("it was not deleted");
            self.until_ended(&probe.run_id, &mut thread.acknowledged).await;
            self.world.model.record(false);
            let asked = self.world.model.requests();
            let last = asked.iter().rev().find(|request| marks::heard(request.body()).contains(&name));
            let heard = last.map(|request| marks::heard(request.body()));
            of_it.heard.insert(thread.thread_id.clone(), heard.unwrap_or_default());
            let answers = last.map(marks::answers).unwrap_or_default();
            if !answers.is_empty() {
                of_it.answers.insert(thread.thread_id, answers);
            }
            of_it.acknowledged.extend(thread.acknowledged);
            of_it.acknowledged.push(probe);
        }
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
