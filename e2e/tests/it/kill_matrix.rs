//! Runs a scenario (a fixed sequence of requests) once per failpoint. In each of these runs, the server is killed at
//! the failpoint and started again. The main scenario creates a deployment, runs a command in its sandbox and deletes
//! it.

use std::collections::BTreeMap;
use std::future::Future;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::pin::Pin;

use herm_testkit::client::Client;
use herm_testkit::process::{Server, processes_that_mention};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::reader::{Reader, is_end};
use crate::world::{World, deployment_of, start, text};
use crate::{log, model_scripts};

/// A fixed sequence of requests to a server. At the end, the scenario stops the server.
pub(crate) type Scenario =
    for<'a> fn(&'a mut RestartingServer<'_>) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

const FAILPOINT: &str = "HERM_FAILPOINT";
/// The prefix of the server's log lines that name a reached failpoint.
const LOG_PREFIX: &str = "failpoint: ";
/// The maximum number of times that the scenario is run per failpoint. The Nth run kills the server when it reaches the
/// failpoint for the Nth time.
const MAX_HITS: usize = 3;
/// The maximum number of scenario runs in parallel. Further runs wait.
const MAX_PARALLEL: usize = 4;
const COMMAND: &str = "echo made >> log.txt";
/// Transactions that depend on timing: only a slow run of the scenario executes them. Their failpoints are not tested,
/// because a second run may not reach them.
const TIMED_TRANSACTIONS: [&str; 1] = ["renew_lease"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_survives_a_kill_at_every_failpoint() {
    let points = kill_at_each_failpoint(
        async || World::sqlite().await,
        MAX_HITS,
        |_| true,
        |server| Box::pin(server.run_main_scenario()),
    )
    .await;
    for expected in ["commit.before:send_message", "commit.after:finish_tool", "effect.after:shell"] {
        assert!(points.contains_key(expected), "{expected} is not among {points:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_survives_a_kill_at_every_failpoint() {
    kill_at_each_failpoint(
        async || World::postgres().await,
        1,
        |_| true,
        |server| Box::pin(server.run_main_scenario()),
    )
    .await;
}

/// Runs the scenario once without a kill. Then, for each failpoint that this run reached and `is_selected` accepts,
/// runs the scenario up to `max_hits` times with a kill at that failpoint. Returns these failpoints, each with the
/// number of times that the first run reached it.
pub(crate) async fn kill_at_each_failpoint(
    world: impl AsyncFn() -> World,
    max_hits: usize,
    is_selected: fn(&str) -> bool,
    scenario: Scenario,
) -> BTreeMap<String, usize> {
    let mut points = list_failpoints(world().await, scenario).await;
    let depends_on_timing = |point: &str| TIMED_TRANSACTIONS.iter().any(|name| point.ends_with(name));
    points.retain(|point, _| is_selected(point) && !depends_on_timing(point));
    let mut runs = JoinSet::new();
    let mut unreached = Vec::new();
    for (point, count) in &points {
        for nth in 1..=max_hits.min(*count) {
            if runs.len() == MAX_PARALLEL {
                unreached.extend(runs.join_next().await.unwrap().unwrap());
            }
            let (world, point) = (world().await, format!("{point}#{nth}"));
            runs.spawn(async move {
                let kills = RestartingServer::new(&world, &point).await.run(scenario).await;
                (kills != 1).then_some(point)
            });
        }
    }
    while let Some(run) = runs.join_next().await {
        unreached.extend(run.unwrap());
    }
    // Because of timing, a run may reach a failpoint less often than the first run did, but it must reach the failpoint
    // at least once. Only kills at the first hit (`#1`) are therefore required.
    unreached.retain(|point| point.ends_with("#1"));
    assert!(unreached.is_empty(), "no server was killed at {unreached:?}");
    points
}

/// Runs the scenario without a kill. Returns the failpoints that were reached, each with the number of times that it
/// was reached.
pub(crate) async fn list_failpoints(world: World, scenario: Scenario) -> BTreeMap<String, usize> {
    let mut server = RestartingServer::new(&world, "list").await;
    scenario(&mut server).await;
    let mut points = BTreeMap::new();
    for point in server.log.lines().filter_map(|line| line.strip_prefix(LOG_PREFIX)) {
        *points.entry(point.to_owned()).or_default() += 1;
    }
    points
}

/// A server that is killed at one failpoint and is then started again without the failpoint.
pub(crate) struct RestartingServer<'a> {
    pub(crate) world: &'a World,
    process: Option<Server>,
    kills: usize,
    /// The logs of all server processes that [`Self::stop`] stopped.
    log: String,
}

impl<'a> RestartingServer<'a> {
    /// Starts a server that is killed when it reaches the failpoint `point`, which may already happen during its start.
    async fn new(world: &'a World, point: &str) -> Self {
        world.model.respond_with(model_scripts::use_shell(COMMAND));
        let launch = world.serve.clone().env(FAILPOINT, point);
        let process = launch.serve().await.unwrap().ok();
        let kills = usize::from(process.is_none());
        Self { world, process, kills, log: String::new() }
    }

    /// Returns a client for the running server. If the server has exited, starts it again first.
    pub(crate) async fn client(&mut self) -> Client {
        let has_ended = self.process.as_mut().is_none_or(|process| process.has_ended().unwrap());
        if has_ended {
            self.kills += usize::from(self.process.is_some());
            self.process = Some(start(&self.world.serve).await);
        }
        self.world.client_of(self.process.as_ref().unwrap())
    }

    /// Runs the scenario. Returns the number of times that the server was killed during the scenario.
    async fn run(mut self, scenario: Scenario) -> usize {
        scenario(&mut self).await;
        self.kills
    }

    pub(crate) async fn run_main_scenario(&mut self) {
        let deployment_id = self.create(&deployment_of("anthropic/claude-sonnet-4.5")).await;
        let run_id = self.send(&deployment_id).await;
        let mut reader = Reader::from_the_start(&deployment_id);
        while !reader.try_until(&self.client().await, |event| is_end(event, &run_id)).await {}
        self.check(&deployment_id, &reader).await;
        self.delete(&deployment_id).await;
        self.stop().await;
    }

    /// Stops the server, which first completes its running work items, for example the teardown of a deployment. If the
    /// server is killed while it stops, starts another server process and stops that one.
    pub(crate) async fn stop(&mut self) {
        loop {
            self.client().await;
            let process = self.process.take().unwrap();
            // Sending the signal fails if the process was already killed. The kill is then counted below, because the
            // exit status shows it.
            let _ = process.terminate();
            let finished = process.wait().await.unwrap();
            self.log.push_str(&finished.stderr);
            if finished.status.success() {
                return;
            }
            assert_eq!(finished.status.signal(), Some(9), "{finished:?}");
            self.kills += 1;
        }
    }

    /// Creates the scenario's only deployment and returns its id. If the response was lost but the deployment exists,
    /// returns the id of the existing deployment.
    pub(crate) async fn create(&mut self, body: &Value) -> String {
        loop {
            let client = self.client().await;
            if let Ok(response) = client.post("/v1/deployments", body).await {
                assert_eq!(response.status, 201, "{}", response.text());
                return text(&response.json(), "deployment_id");
            }
            if let Some(deployment) = self.list("/v1/deployments").await.first() {
                return text(deployment, "deployment_id");
            }
        }
    }

    async fn send(&mut self, deployment_id: &str) -> String {
        let path = format!("/v1/deployments/{deployment_id}");
        loop {
            let client = self.client().await;
            let body = json!({"content": "Make it."});
            if let Ok(response) = client.post(&format!("{path}/messages"), &body).await {
                assert_eq!(response.status, 202, "{}", response.text());
                return text(&response.json(), "run_id");
            }
            if let Some(run) = self.list(&format!("{path}/runs")).await.first() {
                return text(run, "run_id");
            }
        }
    }

    /// Returns the first page of a list. Repeats the request until the server responds.
    pub(crate) async fn list(&mut self, path: &str) -> Vec<Value> {
        loop {
            if let Ok(response) = self.client().await.get(path).await {
                return response.json()["data"].as_array().unwrap().clone();
            }
        }
    }

    async fn check(&mut self, deployment_id: &str, reader: &Reader) {
        let client = self.client().await;
        log::check(&reader.seen);
        log::check_stored(&client, deployment_id, &reader.seen).await;
        let statuses: Vec<&Value> =
            reader.named("run_status").iter().map(|event| &event.data["status"]).collect();
        assert_eq!(statuses, ["queued", "running", "completed"]);
        let [result] = reader.named("tool_result")[..] else { panic!("{:#?}", reader.seen) };
        let file = std::fs::read_to_string(self.world.workspace(deployment_id).join("log.txt"));
        if result.data["is_error"] == true {
            // The server was killed during the tool call. The result must tell the model that the outcome of the call
            // is unknown.
            assert!(result.data["result"].as_str().unwrap().contains("unknown"), "{result:?}");
            assert!(file.is_err() || file.unwrap() == "made\n");
        } else {
            assert_eq!(file.unwrap(), "made\n");
        }
    }

    async fn delete(&mut self, deployment_id: &str) {
        let path = format!("/v1/deployments/{deployment_id}");
        let (workspace, sandbox) =
            (self.world.workspace(deployment_id), self.world.sandbox_dir(deployment_id));
        loop {
            let Ok(response) = self.client().await.delete(&path).await else { continue };
            assert!([200, 404].contains(&response.status.as_u16()), "{}", response.text());
            break;
        }
        let process = self.world.sandbox_process(deployment_id);
        while !is_deleted(&workspace, &sandbox, &process) {
            // `client` starts the server again if it was killed during the deletion.
            if let Ok(response) = self.client().await.get(&path).await {
                assert_eq!(response.status, 404, "{}", response.text());
            }
        }
    }
}

fn is_deleted(workspace: &Path, sandbox: &Path, process: &Path) -> bool {
    !workspace.exists() && !sandbox.exists() && processes_that_mention(process).is_empty()
}
