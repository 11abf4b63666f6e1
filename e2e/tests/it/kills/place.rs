//! Where a life is led: the world, the server of the moment, and clients that ask again until they are answered.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use herm_testkit::client::{Answer, Client};
use herm_testkit::process::{Log, Server};
use serde_json::Value;
use sqlx::Connection as _;
use tokio::sync::watch;

use super::script::Script;
use crate::world::World;

pub(super) struct Place {
    pub(super) world: World,
    pub(super) seed: u64,
    pub(super) script: Script,
    /// How to reach the server; `None` while there is none.
    pub(super) server: watch::Sender<Option<Client>>,
    /// No more is asked for.
    pub(super) is_over: watch::Sender<bool>,
    /// Events that readers have read.
    pub(super) events: watch::Sender<u64>,
    /// Requests whose answer got lost, or that were put off.
    pub(super) asked_again: AtomicU64,
    /// What the server of the moment logs.
    log: Mutex<Log>,
    /// What is being done.
    stage: watch::Sender<&'static str>,
    /// The paths of the runs whose end is waited for.
    pub(super) waiting: Mutex<BTreeSet<String>>,
    /// Questions that were answered.
    pub(super) steered: AtomicU64,
}

impl Place {
    pub(super) fn new(world: World, seed: u64) -> Self {
        let script = Script::new(seed);
        script.play(&world.model);
        Self {
            world,
            seed,
            script,
            server: watch::Sender::new(None),
            is_over: watch::Sender::new(false),
            events: watch::Sender::new(0),
            asked_again: AtomicU64::new(0),
            log: Mutex::default(),
            stage: watch::Sender::new("load and troubles"),
            waiting: Mutex::default(),
            steered: AtomicU64::new(0),
        }
    }

    /// Tells all who wait for it that there is a server again.
    pub(super) fn has(&self, server: &Server) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = server.gathered();
        self.server.send_replace(Some(self.world.client_of(server)));
    }

    /// Notes what is being done from now on.
    pub(super) fn reaches(&self, stage: &'static str) {
        self.stage.send_replace(stage);
    }

    /// What can be said of a life that hangs.
    pub(super) async fn tell(&self) -> String {
        let mut told = format!(
            "at: {}, over: {}, a server: {}, {} events read, {} requests made again",
            *self.stage.borrow(),
            self.is_over(),
            self.server.borrow().is_some(),
            *self.events.borrow(),
            self.asked_again.load(Ordering::SeqCst)
        );
        told.push_str(&format!("\n{}", self.log.lock().unwrap_or_else(PoisonError::into_inner).text()));
        if let Some(url) = &self.world.postgres {
            told.push_str(&backends(url).await);
        }
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(client) = self.server.borrow().clone() else { return told };
        for path in waiting {
            let run = client.get(&path).await.map(|answer| answer.text());
            let (deployment, run_id) = path.split_once("/runs/").unwrap_or_default();
            let events = format!("{deployment}/events?run_id={run_id}&after=evt_0");
            let events = client.get_as(&events, "application/json").await.map(|answer| answer.text());
            told.push_str(&format!("\n{path}: {run:?}\n{events:?}"));
        }
        told
    }

    pub(super) fn is_over(&self) -> bool {
        *self.is_over.borrow()
    }

    /// A client of the server, once there is one.
    pub(super) async fn client(&self) -> Client {
        let mut server = self.server.subscribe();
        // The sender lives as long as this place, so the wait cannot fail.
        server.wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }

    /// Sends a request, under its key, until it has an answer that would not be another the next time.
    pub(super) async fn post(&self, path: &str, key: &str, body: &Value) -> Answer {
        loop {
            if let Ok(answer) = self.client().await.post_once(path, key, body).await {
                // The same request under way, or one that took over from this one: both say to send it again.
                let told = answer.json()["message"].as_str().unwrap_or_default().to_owned();
                let is_under_way = told.contains("is under way") || told.contains("took over");
                if answer.status.is_success() || (answer.status.is_client_error() && !is_under_way) {
                    return answer;
                }
                assert_ne!(answer.status, 500, "{path}: {}", answer.text());
            }
            self.asked_again.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Deletes what is there, or was.
    pub(super) async fn delete(&self, path: &str) {
        loop {
            if let Ok(answer) = self.client().await.delete(path).await
                && [200, 404].contains(&answer.status.as_u16())
            {
                return;
            }
            self.asked_again.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A list, from its first page to its last.
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

/// What PostgreSQL is doing for the database at `url`.
async fn backends(url: &str) -> String {
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    let query = "SELECT concat_ws(' ', pid, state, pg_blocking_pids(pid), now() - state_change, query) \
                 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let rows: Vec<(String,)> = sqlx::query_as(query).fetch_all(&mut connection).await.unwrap();
    rows.into_iter().map(|(row,)| format!("{row}\n")).collect()
}
