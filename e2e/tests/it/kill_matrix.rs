//! The whole life of a deployment, with the server killed at each fault point in turn and started again.

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
use crate::{log, scripts};

/// How a life is led, from its beginning to its server's end.
pub(crate) type Live = for<'a> fn(&'a mut Life<'_>) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

const FAULT_POINT: &str = "HERM_FAULT_POINT";
/// Before the name of a point, in a server's log.
const REACHED: &str = "fault point: ";
/// How often each point is tried: the first time that it is reached, the second time, …
const TIMES: usize = 3;
/// Lives that are led side by side.
const AT_ONCE: usize = 4;
const COMMAND: &str = "echo made >> log.txt";
/// Transactions that a life comes to by taking long alone: whether it does is not for a test to say.
const BY_TIME: [&str; 1] = ["renew_lease"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_survives_a_kill_at_every_point() {
    let points = walk(async || World::sqlite().await, TIMES, |_| true, |life| Box::pin(life.live())).await;
    for expected in ["commit.before:send_message", "commit.after:finish_tool", "effect.after:shell"] {
        assert!(points.contains_key(expected), "{expected} is not among {points:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_survives_a_kill_at_every_point() {
    walk(async || World::postgres().await, 1, |_| true, |life| Box::pin(life.live())).await;
}

/// Leads a life for each of the points that it reaches and that are wanted; gives the points.
pub(crate) async fn walk(
    world: impl AsyncFn() -> World,
    times: usize,
    is_wanted: fn(&str) -> bool,
    live: Live,
) -> BTreeMap<String, usize> {
    let mut points = points(world().await, live).await;
    let is_by_time = |point: &str| BY_TIME.iter().any(|subject| point.ends_with(subject));
    points.retain(|point, _| is_wanted(point) && !is_by_time(point));
    let mut lives = JoinSet::new();
    let mut unreached = Vec::new();
    for (point, count) in &points {
        for nth in 1..=times.min(*count) {
            if lives.len() == AT_ONCE {
                unreached.extend(lives.join_next().await.unwrap().unwrap());
            }
            let (world, point) = (world().await, format!("{point}#{nth}"));
            lives.spawn(async move {
                let deaths = Life::new(&world, &point).await.lead(live).await;
                (deaths != 1).then_some(point)
            });
        }
    }
    while let Some(life) = lives.join_next().await {
        unreached.extend(life.unwrap());
    }
    // How often some are reached depends on how things fall; that they are reached does not.
    unreached.retain(|point| point.ends_with("#1"));
    assert!(unreached.is_empty(), "nothing was killed at {unreached:?}");
    points
}

/// All points that a life reaches, and how often.
pub(crate) async fn points(world: World, live: Live) -> BTreeMap<String, usize> {
    let mut life = Life::new(&world, "list").await;
    live(&mut life).await;
    let mut points = BTreeMap::new();
    for point in life.said.lines().filter_map(|line| line.strip_prefix(REACHED)) {
        *points.entry(point.to_owned()).or_default() += 1;
    }
    points
}

/// A deployment's life, and the server that it is led on.
pub(crate) struct Life<'a> {
    pub(crate) world: &'a World,
    server: Option<Server>,
    deaths: usize,
    /// What servers that were stopped have logged.
    said: String,
}

impl<'a> Life<'a> {
    /// Starts a server that dies at `point`, be it while it starts.
    async fn new(world: &'a World, point: &str) -> Self {
        world.model.respond_with(scripts::use_shell(COMMAND));
        let doomed = world.serve.clone().env(FAULT_POINT, point);
        let server = doomed.serve().await.unwrap().ok();
        let deaths = usize::from(server.is_none());
        Self { world, server, deaths, said: String::new() }
    }

    /// A client of a server that runs: where the last one has died, of a new one.
    pub(crate) async fn client(&mut self) -> Client {
        let has_ended = self.server.as_mut().is_none_or(|server| server.has_ended().unwrap());
        if has_ended {
            self.deaths += usize::from(self.server.is_some());
            self.server = Some(start(&self.world.serve).await);
        }
        self.world.client_of(self.server.as_ref().unwrap())
    }

    /// Leads it to its end; gives how often the server has died.
    async fn lead(mut self, live: Live) -> usize {
        live(&mut self).await;
        self.deaths
    }

    pub(crate) async fn live(&mut self) {
        let deployment_id = self.create(&deployment_of("anthropic/claude-sonnet-4.5")).await;
        let run_id = self.send(&deployment_id).await;
        let mut reader = Reader::from_the_start(&deployment_id);
        while !reader.try_until(&self.client().await, |event| is_end(event, &run_id)).await {}
        self.check(&deployment_id, &reader).await;
        self.delete(&deployment_id).await;
        self.stop().await;
    }

    /// Stops the server, which first ends what it has in hand, a deletion's last steps among it.
    pub(crate) async fn stop(&mut self) {
        loop {
            self.client().await;
            let server = self.server.take().unwrap();
            // One that has just died is seen below.
            let _ = server.terminate();
            let finished = server.wait().await.unwrap();
            self.said.push_str(&finished.stderr);
            if finished.status.success() {
                return;
            }
            assert_eq!(finished.status.signal(), Some(9), "{finished:?}");
            self.deaths += 1;
        }
    }

    /// A create whose answer got lost may have happened: then the deployment is there.
    pub(crate) async fn create(&mut self, body: &Value) -> String {
        loop {
            let client = self.client().await;
            if let Ok(answer) = client.post("/v1/deployments", body).await {
                assert_eq!(answer.status, 201, "{}", answer.text());
                return text(&answer.json(), "deployment_id");
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
            if let Ok(answer) = client.post(&format!("{path}/messages"), &body).await {
                assert_eq!(answer.status, 202, "{}", answer.text());
                return text(&answer.json(), "run_id");
            }
            if let Some(run) = self.list(&format!("{path}/runs")).await.first() {
                return text(run, "run_id");
            }
        }
    }

    /// A list, from a server that lives long enough to give it.
    pub(crate) async fn list(&mut self, path: &str) -> Vec<Value> {
        loop {
            if let Ok(answer) = self.client().await.get(path).await {
                return answer.json()["data"].as_array().unwrap().clone();
            }
        }
    }

    async fn check(&mut self, deployment_id: &str, reader: &Reader) {
        let client = self.client().await;
        log::check(&reader.seen);
        log::check_stored(&client, deployment_id, &reader.seen).await;
        let statuses: Vec<&Value> =
            reader.of("run_status").iter().map(|event| &event.data["status"]).collect();
        assert_eq!(statuses, ["queued", "running", "completed"]);
        let [result] = reader.of("tool_result")[..] else { panic!("{:#?}", reader.seen) };
        let made = std::fs::read_to_string(self.world.workspace(deployment_id).join("log.txt"));
        if result.data["is_error"] == true {
            // Nobody knew whether it was made, and the model was told so.
            assert!(result.data["result"].as_str().unwrap().contains("unknown"), "{result:?}");
            assert!(made.is_err() || made.unwrap() == "made\n");
        } else {
            assert_eq!(made.unwrap(), "made\n");
        }
    }

    async fn delete(&mut self, deployment_id: &str) {
        let path = format!("/v1/deployments/{deployment_id}");
        let (workspace, sandbox) =
            (self.world.workspace(deployment_id), self.world.sandbox_dir(deployment_id));
        loop {
            let Ok(answer) = self.client().await.delete(&path).await else { continue };
            assert!([200, 404].contains(&answer.status.as_u16()), "{}", answer.text());
            break;
        }
        let process = self.world.sandbox_process(deployment_id);
        while !is_gone(&workspace, &sandbox, &process) {
            // Starts the server again if it has died meanwhile.
            if let Ok(answer) = self.client().await.get(&path).await {
                assert_eq!(answer.status, 404, "{}", answer.text());
            }
        }
    }
}

fn is_gone(workspace: &Path, sandbox: &Path, process: &Path) -> bool {
    !workspace.exists() && !sandbox.exists() && processes_that_mention(process).is_empty()
}
