//! The state that all parts of the load test share, for example the current server. Also contains the functions that
//! repeat a request until it succeeds.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use herm_testkit::client::{Client, Response};
use herm_testkit::process::{Log, Server};
use serde_json::Value;
use sqlx::Connection as _;
use tokio::sync::watch;

use super::model_script::ModelScript;
use crate::world::World;

pub(super) struct LoadTest {
    pub(super) world: World,
    pub(super) seed: u64,
    pub(super) model_script: ModelScript,
    /// A client for the running server. `None` while the server is down.
    pub(super) current_client: watch::Sender<Option<Client>>,
    /// True once the load has ended. Clients then create no more threads and send no more messages, except the last
    /// message of each thread (the probe).
    pub(super) is_load_over: watch::Sender<bool>,
    /// The total number of events that all clients have read from their streams.
    pub(super) events_read: watch::Sender<u64>,
    /// The number of requests that were repeated because the response was lost or told the client to retry.
    pub(super) retries: AtomicU64,
    /// The log of the current server process.
    log: Mutex<Log>,
    /// The current stage of the test, for example `deleting all deployments`. It is printed if the test hangs.
    stage: watch::Sender<&'static str>,
    /// The API paths of the runs for which clients are waiting. A wait ends when the run ends or asks a question.
    pub(super) awaited_runs: Mutex<BTreeSet<String>>,
    /// The number of the agents' questions that clients answered.
    pub(super) answered_questions: AtomicU64,
}

impl LoadTest {
    pub(super) fn new(world: World, seed: u64) -> Self {
        let model_script = ModelScript::new(seed);
        model_script.play(&world.model);
        Self {
            world,
            seed,
            model_script,
            current_client: watch::Sender::new(None),
            is_load_over: watch::Sender::new(false),
            events_read: watch::Sender::new(0),
            retries: AtomicU64::new(0),
            log: Mutex::default(),
            stage: watch::Sender::new("load and failures"),
            awaited_runs: Mutex::default(),
            answered_questions: AtomicU64::new(0),
        }
    }

    /// Makes the clients use this server, and wakes those that wait for a server.
    pub(super) fn set_server(&self, server: &Server) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = server.log_handle();
        self.current_client.send_replace(Some(self.world.client_of(server)));
    }

    pub(super) fn set_stage(&self, stage: &'static str) {
        self.stage.send_replace(stage);
    }

    /// Describes the state of a test that hangs: its stage, the server's log, the PostgreSQL connections, and the runs
    /// for which clients wait.
    pub(super) async fn describe(&self) -> String {
        let mut report = format!(
            "stage: {}, load is over: {}, server is running: {}, {} events read, {} requests repeated",
            *self.stage.borrow(),
            self.is_load_over(),
            self.current_client.borrow().is_some(),
            *self.events_read.borrow(),
            self.retries.load(Ordering::SeqCst)
        );
        report.push_str(&format!("\n{}", self.log.lock().unwrap_or_else(PoisonError::into_inner).text()));
        if let Some(url) = &self.world.postgres {
            report.push_str(&describe_backends(url).await);
        }
        let awaited_runs = self.awaited_runs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(client) = self.current_client.borrow().clone() else { return report };
        for path in awaited_runs {
            let run = client.get(&path).await.map(|response| response.text());
            let (deployment, run_id) = path.split_once("/runs/").unwrap_or_default();
            let events = format!("{deployment}/events?run_id={run_id}&after=evt_0");
            let events = client.get_as(&events, "application/json").await.map(|response| response.text());
            report.push_str(&format!("\n{path}: {run:?}\n{events:?}"));
        }
        report
    }

    pub(super) fn is_load_over(&self) -> bool {
        *self.is_load_over.borrow()
    }

    /// Waits until a server is running. Returns a client for it.
    pub(super) async fn client(&self) -> Client {
        let mut current_client = self.current_client.subscribe();
        // This cannot fail: `wait_for` fails only if the sender is dropped, and `self` owns the sender.
        current_client.wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }

    /// Sends a POST request with this idempotency key. Repeats it until it succeeds or fails permanently.
    pub(super) async fn post(&self, path: &str, key: &str, body: &Value) -> Response {
        loop {
            if let Ok(response) = self.client().await.post_once(path, key, body).await {
                // Two kinds of conflict require a retry: an earlier attempt is still in progress, or another attempt
                // has taken over the idempotency record.
                let message = response.json()["message"].as_str().unwrap_or_default().to_owned();
                let is_in_progress = message.contains("is in progress") || message.contains("took over");
                if response.status.is_success() || (response.status.is_client_error() && !is_in_progress) {
                    return response;
                }
                assert_ne!(response.status, 500, "{path}: {}", response.text());
            }
            self.retries.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Deletes the resource at `path`. Repeats the request until the response says that the resource is deleted or does
    /// not exist.
    pub(super) async fn delete(&self, path: &str) {
        loop {
            if let Ok(response) = self.client().await.delete(path).await
                && [200, 404].contains(&response.status.as_u16())
            {
                return;
            }
            self.retries.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Returns the items of all pages of a list. `path` must contain a query, because the cursor is appended with `&`.
    pub(super) async fn list(&self, path: &str) -> Vec<Value> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let client = self.client().await;
            let Ok(page) = client.get_as(&format!("{path}{cursor}"), "application/json").await else {
                continue;
            };
            assert_eq!(page.status, 200, "{path}: {}", page.text());
            let page = page.json();
            all.extend(page["data"].as_array().unwrap().iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }
}

/// Describes all other connections to the PostgreSQL database at `url`, one per line: process id, state, blocking
/// processes, time in the state, and query.
async fn describe_backends(url: &str) -> String {
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    let query = "SELECT concat_ws(' ', pid, state, pg_blocking_pids(pid), now() - state_change, query) \
                 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let rows: Vec<(String,)> = sqlx::query_as(query).fetch_all(&mut connection).await.unwrap();
    rows.into_iter().map(|(row,)| format!("{row}\n")).collect()
}
