//! Measures sandboxes: the duration of the commands that the agent executes in them, the rate at which they can be
//! created and deleted, and their resident memory. `docker` and `gvisor` sandboxes are measured only if the environment
//! variable `HERM_TEST_DOCKER_HOST` is set. `make bench` sets it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use herm_testkit::model_server::{RecordedRequest, Reply};
use herm_testkit::process::processes_that_mention;
use serde_json::{Value, json};

use super::{Mode, Part, ms};
use crate::api::Api;
use crate::event_stream::EventStream;
use crate::machine::resident_bytes;
use crate::report::{Row, Target};
use crate::setup::ServerSetup;
use crate::stats::Samples;

/// The durations of one batch, in milliseconds. A batch is the set of commands that a single model reply requests.
struct BatchTimes {
    /// The time from receiving the first `tool_call` event to receiving the last `tool_result` event.
    call_to_result: f64,
    /// The `duration_ms` that the last `tool_result` event contains. The server rounds it to whole milliseconds.
    reported: f64,
    /// The time from sending the message to receiving the last `tool_result` event.
    sent_to_result: f64,
}

pub(super) async fn measure(mode: Mode) -> anyhow::Result<Vec<Row>> {
    let mut rows = measure_local(mode).await?;
    if let Ok(host) = std::env::var("HERM_TEST_DOCKER_HOST") {
        rows.extend(measure_containers(mode, &host).await?);
    }
    Ok(rows)
}

/// Measures sandboxes of the types `docker` and `gvisor`. Batches of several commands are measured only for `local`
/// sandboxes, because the program that executes them is the same in every type of sandbox.
async fn measure_containers(mode: Mode, docker_host: &str) -> anyhow::Result<Vec<Row>> {
    let setup = ServerSetup::new().await?.with_docker(docker_host, "herm-sandbox:test");
    setup.respond_with(call_each_line);
    let (_server, api) = setup.start().await?;
    let mut rows = Vec::new();
    for (engine, cold_label, warm_label) in [
        ("docker", "first command, cold `docker` sandbox", "a command, warm `docker` sandbox"),
        ("gvisor", "first command, cold `gvisor` sandbox", "a command, warm `gvisor` sandbox"),
    ] {
        let (mut cold_ms, mut warm_ms) = (Vec::new(), Vec::new());
        for _ in 0..mode.count(10, 1) {
            let deployment_id = api.create_with(Some(engine)).await?;
            let mut stream = api.stream(&deployment_id, "").await?;
            cold_ms.push(run_batch(&api, &deployment_id, &mut stream, "true").await?.call_to_result);
            for _ in 0..mode.count(10, 1) {
                warm_ms.push(run_batch(&api, &deployment_id, &mut stream, "true").await?.call_to_result);
            }
        }
        rows.push(Part::Sandbox.row(cold_label, Target::None, "ms", cold_ms, String::new())?);
        rows.push(Part::Sandbox.row(warm_label, Target::None, "ms", warm_ms, String::new())?);
        let label = format!("create, one command, delete: `{engine}`");
        let rates = lifecycle_rates(mode, &api, engine, 5).await?;
        rows.push(Part::Sandbox.row(label, Target::None, "rounds/s", rates, "in sequence")?);
        let resident = container_resident_mb(mode, &setup, &api, engine, docker_host).await?;
        let label = format!("resident, a running `{engine}` sandbox");
        let note = "the container's processes and the engine's processes for it";
        rows.push(Part::Sandbox.row(label, Target::None, "MB", resident, note)?);
    }
    Ok(rows)
}

async fn measure_local(mode: Mode) -> anyhow::Result<Vec<Row>> {
    let setup = ServerSetup::new().await?;
    setup.respond_with(call_each_line);
    let (_server, api) = setup.start().await?;
    let mut cold = Vec::new();
    for _ in 0..mode.count(20, 2) {
        let deployment_id = api.create_with(Some("local")).await?;
        let mut stream = api.stream(&deployment_id, "").await?;
        cold.push(run_batch(&api, &deployment_id, &mut stream, "true").await?);
    }
    let deployment_id = api.create_with(Some("local")).await?;
    let mut stream = api.stream(&deployment_id, "").await?;
    let mut repeat = async |count: usize, commands: &str| {
        let mut batches = Vec::new();
        for _ in 0..count {
            batches.push(run_batch(&api, &deployment_id, &mut stream, commands).await?);
        }
        anyhow::Ok(batches)
    };
    repeat(2, "true").await?;
    let warm = repeat(mode.count(200, 3), "true").await?;
    let sleeps = repeat(mode.count(5, 1), "sleep 1\nsleep 1\nsleep 1").await?;
    let rates = lifecycle_rates(mode, &api, "local", 20).await?;
    let resident = local_resident_mb(mode, &setup, &api).await?;
    let values =
        |batches: &[BatchTimes]| batches.iter().map(|batch| batch.call_to_result).collect::<Vec<_>>();
    let note = |batches: &[BatchTimes]| {
        let reported = Samples::new(batches.iter().map(|batch| batch.reported).collect())?.median();
        let sent_to_result =
            Samples::new(batches.iter().map(|batch| batch.sent_to_result).collect())?.median();
        anyhow::Ok(format!("`duration_ms` {reported:.0}; {sent_to_result:.0} ms from sending the message"))
    };
    let row = |label, target, batches: &[BatchTimes]| {
        Part::Sandbox.row(label, target, "ms", values(batches), note(batches)?)
    };
    Ok(vec![
        row("first command, cold sandbox", Target::Below(80.0), &cold)?,
        row("a command, warm sandbox", Target::Below(5.0), &warm)?,
        row("three `sleep 1` in one batch", Target::Below(1200.0), &sleeps)?,
        Part::Sandbox.row("create, one command, delete", Target::None, "rounds/s", rates, "in sequence")?,
        Part::Sandbox.row(
            "resident, a running `local` sandbox",
            Target::None,
            "MB",
            resident,
            "guest and bubblewrap",
        )?,
    ])
}

/// Creates a deployment, executes one command in it and deletes it, `batch` times in sequence. Repeats this several
/// times and returns each repetition's rate in deployments per second.
async fn lifecycle_rates(mode: Mode, api: &Api, engine: &str, batch: usize) -> anyhow::Result<Vec<f64>> {
    let mut rates = Vec::new();
    for _ in 0..mode.count(5, 1) {
        let (started, count) = (Instant::now(), mode.count(batch, 1));
        for _ in 0..count {
            let deployment_id = api.create_with(Some(engine)).await?;
            let mut stream = api.stream(&deployment_id, "").await?;
            run_batch(api, &deployment_id, &mut stream, "true").await?;
            api.delete(&deployment_id).await?;
        }
        #[expect(clippy::cast_precision_loss, reason = "the count is small")]
        rates.push(count as f64 / started.elapsed().as_secs_f64());
    }
    Ok(rates)
}

/// Measures several idle `local` sandboxes. Returns the total resident memory of each sandbox's processes, in MB.
async fn local_resident_mb(mode: Mode, setup: &ServerSetup, api: &Api) -> anyhow::Result<Vec<f64>> {
    let instance = std::fs::read_to_string(setup.data_dir().join("sandboxes/.shared/instance"))?;
    let mut resident = Vec::new();
    for _ in 0..mode.count(5, 1) {
        let deployment_id = api.create_with(Some("local")).await?;
        let mut stream = api.stream(&deployment_id, "").await?;
        run_batch(api, &deployment_id, &mut stream, "true").await?;
        let name = format!("herm-sandbox:{instance}:{deployment_id}");
        let processes = processes_that_mention(Path::new(&name));
        anyhow::ensure!(!processes.is_empty(), "no process of the sandbox {name} is running");
        resident.push(resident_with_children(processes)? / 1e6);
    }
    Ok(resident)
}

/// Measures several idle containers. Returns the total resident memory of each container's processes, in MB.
/// The engine's helper processes are found by the container id in their command lines. All other processes of the
/// container are descendants of these helper processes.
async fn container_resident_mb(
    mode: Mode,
    setup: &ServerSetup,
    api: &Api,
    engine: &str,
    docker_host: &str,
) -> anyhow::Result<Vec<f64>> {
    let instance = std::fs::read_to_string(setup.data_dir().join("sandboxes/.shared/instance"))?;
    let mut resident = Vec::new();
    for _ in 0..mode.count(5, 1) {
        let deployment_id = api.create_with(Some(engine)).await?;
        let mut stream = api.stream(&deployment_id, "").await?;
        run_batch(api, &deployment_id, &mut stream, "true").await?;
        let name = format!("herm-{instance}-{deployment_id}");
        let arguments = ["-H", docker_host, "inspect", "--format", "{{.Id}}", &name];
        let output = tokio::process::Command::new("docker").args(arguments).output().await?;
        anyhow::ensure!(output.status.success(), "the container {name} does not exist");
        let id = String::from_utf8(output.stdout)?;
        let processes = processes_that_mention(Path::new(id.trim()));
        anyhow::ensure!(!processes.is_empty(), "no process of the container {name} is running");
        resident.push(resident_with_children(processes)? / 1e6);
    }
    Ok(resident)
}

/// Returns the resident memory of these processes and all their descendants, in bytes.
fn resident_with_children(mut processes: Vec<u32>) -> anyhow::Result<f64> {
    let mut seen = BTreeSet::new();
    let mut bytes = 0.0;
    while let Some(pid) = processes.pop() {
        if !seen.insert(pid) {
            continue;
        }
        // The process may have exited in the meantime.
        let Ok(own_bytes) = resident_bytes(pid) else { continue };
        bytes += own_bytes;
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let children = std::fs::read_to_string(task?.path().join("children")).unwrap_or_default();
            processes.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    Ok(bytes)
}

/// The scripted model: calls the tool `shell` for each line of the user's message, and replies `ok` when it receives
/// the results.
fn call_each_line(request: &RecordedRequest) -> Reply {
    if !request.tool_results_since_user().is_empty() {
        return Reply::text("ok");
    }
    let message = request.last_user_text();
    message.lines().fold(Reply::new(), |reply, command| reply.tool_call("shell", json!({"command": command})))
}

/// Makes the scripted model request all `commands`, one per line, in a single reply, and measures the durations.
async fn run_batch(
    api: &Api,
    deployment_id: &str,
    stream: &mut EventStream,
    commands: &str,
) -> anyhow::Result<BatchTimes> {
    let sent = Instant::now();
    // Each message is sent to a new thread, so that the model's context does not grow.
    api.send(deployment_id, "new", commands).await?;
    stream.wait_for("tool_call").await?;
    let called = Instant::now();
    let mut reported = 0.0;
    for _ in commands.lines() {
        reported = duration_ms(stream.wait_for("tool_result").await?.data)?;
    }
    let ended = Instant::now();
    stream.wait_for_completion().await?;
    Ok(BatchTimes { call_to_result: ms(ended - called), reported, sent_to_result: ms(ended - sent) })
}

fn duration_ms(data: &str) -> anyhow::Result<f64> {
    let result: Value = serde_json::from_str(data)?;
    anyhow::ensure!(
        result.get("is_error") == Some(&Value::Bool(false)),
        "a command in a sandbox failed: {data}"
    );
    result
        .get("duration_ms")
        .and_then(Value::as_f64)
        .with_context(|| format!("the tool result has no `duration_ms`: {data}"))
}
