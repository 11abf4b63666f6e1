//! Commands in sandboxes, as a run makes them. Docker and gVisor are measured where `HERM_TEST_DOCKER_HOST` says which
//! engine to use, as `make bench` does.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use herm_testkit::model_server::{RecordedRequest, Reply};
use herm_testkit::process::processes_that_mention;
use serde_json::{Value, json};

use super::{Part, Scale, ms};
use crate::api::Api;
use crate::bed::Bed;
use crate::frames::Frames;
use crate::machine::resident_bytes;
use crate::report::{Bar, Row};
use crate::stats::Samples;

/// How long a batch of commands took, in milliseconds.
struct Batch {
    /// From the first call to the last result, as their events came.
    events: f64,
    /// As the server says of the last result; whole milliseconds.
    said: f64,
    /// From sending the message to the last result.
    from_sent: f64,
}

pub(super) async fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let mut rows = measure_local(scale).await?;
    if let Ok(host) = std::env::var("HERM_TEST_DOCKER_HOST") {
        rows.extend(measure_containers(scale, &host).await?);
    }
    Ok(rows)
}

/// Starts and commands alone: what a command takes inside is the same guest's work.
async fn measure_containers(scale: Scale, docker_host: &str) -> anyhow::Result<Vec<Row>> {
    let bed = Bed::new().await?.with_docker(docker_host, "herm-sandbox:test");
    bed.respond_with(call_each_line);
    let (_server, api) = bed.start().await?;
    let mut rows = Vec::new();
    for (engine, first, warm) in [
        ("docker", "first command, cold `docker` sandbox", "a command, warm `docker` sandbox"),
        ("gvisor", "first command, cold `gvisor` sandbox", "a command, warm `gvisor` sandbox"),
    ] {
        let (mut cold_ms, mut warm_ms) = (Vec::new(), Vec::new());
        for _ in 0..scale.of(10, 1) {
            let deployment_id = api.create_with(Some(engine)).await?;
            let mut frames = api.stream(&deployment_id, "").await?;
            cold_ms.push(run_batch(&api, &deployment_id, &mut frames, "true").await?.events);
            for _ in 0..scale.of(10, 1) {
                warm_ms.push(run_batch(&api, &deployment_id, &mut frames, "true").await?.events);
            }
        }
        rows.push(Part::Sandbox.row(first, Bar::None, "ms", cold_ms, String::new())?);
        rows.push(Part::Sandbox.row(warm, Bar::None, "ms", warm_ms, String::new())?);
        let lives = format!("create, one command, delete: `{engine}`");
        let rates = rounds(scale, &api, engine, 5).await?;
        rows.push(Part::Sandbox.row(lives, Bar::None, "rounds/s", rates, "one after the other")?);
        let resident = containers(scale, &bed, &api, engine, docker_host).await?;
        let running = format!("resident, a running `{engine}` sandbox");
        let note = "the container's processes and those of the engine that are its own";
        rows.push(Part::Sandbox.row(running, Bar::None, "MB", resident, note)?);
    }
    Ok(rows)
}

async fn measure_local(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let bed = Bed::new().await?;
    bed.respond_with(call_each_line);
    let (_server, api) = bed.start().await?;
    let mut cold = Vec::new();
    for _ in 0..scale.of(20, 2) {
        let deployment_id = api.create_with(Some("local")).await?;
        let mut frames = api.stream(&deployment_id, "").await?;
        cold.push(run_batch(&api, &deployment_id, &mut frames, "true").await?);
    }
    let deployment_id = api.create_with(Some("local")).await?;
    let mut frames = api.stream(&deployment_id, "").await?;
    let mut repeat = async |count: usize, commands: &str| {
        let mut batches = Vec::new();
        for _ in 0..count {
            batches.push(run_batch(&api, &deployment_id, &mut frames, commands).await?);
        }
        anyhow::Ok(batches)
    };
    repeat(2, "true").await?;
    let warm = repeat(scale.of(200, 3), "true").await?;
    let sleeps = repeat(scale.of(5, 1), "sleep 1\nsleep 1\nsleep 1").await?;
    let (rounds, resident) = (rounds(scale, &api, "local", 20).await?, guests(scale, &bed, &api).await?);
    let events = |batches: &[Batch]| batches.iter().map(|batch| batch.events).collect::<Vec<_>>();
    let note = |batches: &[Batch]| {
        let said = Samples::new(batches.iter().map(|batch| batch.said).collect())?.median();
        let sent = Samples::new(batches.iter().map(|batch| batch.from_sent).collect())?.median();
        anyhow::Ok(format!("`duration_ms` {said:.0}; from sending the message {sent:.0} ms"))
    };
    let row =
        |what, bar, batches: &[Batch]| Part::Sandbox.row(what, bar, "ms", events(batches), note(batches)?);
    Ok(vec![
        row("first command, cold sandbox", Bar::Below(80.0), &cold)?,
        row("a command, warm sandbox", Bar::Below(5.0), &warm)?,
        row("three `sleep 1` in one batch", Bar::Below(1200.0), &sleeps)?,
        Part::Sandbox.row(
            "create, one command, delete",
            Bar::None,
            "rounds/s",
            rounds,
            "one after the other",
        )?,
        Part::Sandbox.row(
            "resident, a running `local` sandbox",
            Bar::None,
            "MB",
            resident,
            "guest and bubblewrap",
        )?,
    ])
}

/// Deployments that live for one command, a second.
async fn rounds(scale: Scale, api: &Api, engine: &str, at_a_time: usize) -> anyhow::Result<Vec<f64>> {
    let mut rates = Vec::new();
    for _ in 0..scale.of(5, 1) {
        let (begun, count) = (Instant::now(), scale.of(at_a_time, 1));
        for _ in 0..count {
            let deployment_id = api.create_with(Some(engine)).await?;
            let mut frames = api.stream(&deployment_id, "").await?;
            run_batch(api, &deployment_id, &mut frames, "true").await?;
            api.delete(&deployment_id).await?;
        }
        #[expect(clippy::cast_precision_loss, reason = "there are few")]
        rates.push(count as f64 / begun.elapsed().as_secs_f64());
    }
    Ok(rates)
}

/// What the processes take that a sandbox has without a command.
async fn guests(scale: Scale, bed: &Bed, api: &Api) -> anyhow::Result<Vec<f64>> {
    let instance = std::fs::read_to_string(bed.data_dir().join("sandboxes/.shared/instance"))?;
    let mut resident = Vec::new();
    for _ in 0..scale.of(5, 1) {
        let deployment_id = api.create_with(Some("local")).await?;
        let mut frames = api.stream(&deployment_id, "").await?;
        run_batch(api, &deployment_id, &mut frames, "true").await?;
        let name = format!("herm-sandbox:{instance}:{deployment_id}");
        let outside = processes_that_mention(Path::new(&name));
        anyhow::ensure!(!outside.is_empty(), "there is no process {name}");
        resident.push(resident_with_children(outside)? / 1e6);
    }
    Ok(resident)
}

/// The same of containers: whatever the engine runs for one names it by its id, and the rest are children of that.
async fn containers(
    scale: Scale,
    bed: &Bed,
    api: &Api,
    engine: &str,
    docker_host: &str,
) -> anyhow::Result<Vec<f64>> {
    let instance = std::fs::read_to_string(bed.data_dir().join("sandboxes/.shared/instance"))?;
    let mut resident = Vec::new();
    for _ in 0..scale.of(5, 1) {
        let deployment_id = api.create_with(Some(engine)).await?;
        let mut frames = api.stream(&deployment_id, "").await?;
        run_batch(api, &deployment_id, &mut frames, "true").await?;
        let name = format!("herm-{instance}-{deployment_id}");
        let arguments = ["-H", docker_host, "inspect", "--format", "{{.Id}}", &name];
        let found = tokio::process::Command::new("docker").args(arguments).output().await?;
        anyhow::ensure!(found.status.success(), "there is no container {name}");
        let id = String::from_utf8(found.stdout)?;
        let of_it = processes_that_mention(Path::new(id.trim()));
        anyhow::ensure!(!of_it.is_empty(), "no process is of the container {name}");
        resident.push(resident_with_children(of_it)? / 1e6);
    }
    Ok(resident)
}

/// What these processes take together with all below them.
fn resident_with_children(mut processes: Vec<u32>) -> anyhow::Result<f64> {
    let mut seen = BTreeSet::new();
    let mut bytes = 0.0;
    while let Some(pid) = processes.pop() {
        if !seen.insert(pid) {
            continue;
        }
        // What has ended meanwhile, as a short-lived helper does, takes nothing.
        let Ok(of_it) = resident_bytes(pid) else { continue };
        bytes += of_it;
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let children = std::fs::read_to_string(task?.path().join("children")).unwrap_or_default();
            processes.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    Ok(bytes)
}

/// Calls the shell once for each line of the message, then is content.
fn call_each_line(request: &RecordedRequest) -> Reply {
    if !request.tool_results_since_user().is_empty() {
        return Reply::text("ok");
    }
    let message = request.last_user_text();
    message.lines().fold(Reply::new(), |reply, command| reply.tool_call("shell", json!({"command": command})))
}

async fn run_batch(
    api: &Api,
    deployment_id: &str,
    frames: &mut Frames,
    commands: &str,
) -> anyhow::Result<Batch> {
    let sent = Instant::now();
    // One thread for each, so that the model is not told of earlier ones.
    api.send(deployment_id, "new", commands).await?;
    frames.until("tool_call").await?;
    let called = Instant::now();
    let mut said = 0.0;
    for _ in commands.lines() {
        said = duration_ms(frames.until("tool_result").await?.data)?;
    }
    let ended = Instant::now();
    frames.until_completed().await?;
    Ok(Batch { events: ms(ended - called), said, from_sent: ms(ended - sent) })
}

fn duration_ms(data: &str) -> anyhow::Result<f64> {
    let result: Value = serde_json::from_str(data)?;
    anyhow::ensure!(result.get("is_error") == Some(&Value::Bool(false)), "a command failed: {data}");
    result.get("duration_ms").and_then(Value::as_f64).with_context(|| format!("no duration_ms in {data}"))
}
