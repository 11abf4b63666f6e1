//! Measures the resident memory of an idle server, with and without many idle deployments, and its growth per completed
//! run.

use anyhow::Context as _;
use futures_util::future::try_join_all;
use herm_testkit::process::Server;

use super::{Mode, Part};
use crate::api::Api;
use crate::machine::resident_bytes;
use crate::report::{Row, Target};
use crate::setup::{ServerSetup, stop, wait_for_background_work};
use crate::stats::slope;

/// The number of clients that concurrently create deployments or send messages.
const CLIENTS: usize = 20;
const MB: f64 = 1e6;

pub(super) async fn measure(mode: Mode) -> anyhow::Result<Vec<Row>> {
    let (mut idle, mut full, mut restarted) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..mode.count(3, 1) {
        let setup = ServerSetup::new().await?;
        let (server, api) = setup.start().await?;
        wait_for_background_work().await;
        idle.push(resident(&server)? / MB);
        let per_client = mode.count(500, 1);
        try_join_all((0..CLIENTS).map(|_| api.create_many(per_client))).await?;
        wait_for_background_work().await;
        full.push(resident(&server)? / MB);
        stop(server).await?;
        let (server, _) = setup.start().await?;
        wait_for_background_work().await;
        restarted.push(resident(&server)? / MB);
    }
    let mut growth = Vec::new();
    for _ in 0..mode.count(3, 1) {
        growth.push(growth_per_run(mode).await?);
    }
    let row =
        |label: &str, target, unit, values, note: &str| Part::Memory.row(label, target, unit, values, note);
    Ok(vec![
        row("resident, idle", Target::Below(40.0), "MB", idle, "2 s after the start")?,
        row(
            "resident, 10,000 idle deployments",
            Target::Below(80.0),
            "MB",
            full,
            "the process that created them",
        )?,
        row("resident, 10,000 idle deployments, after a restart", Target::Below(80.0), "MB", restarted, "")?,
        row(
            "growth per run",
            Target::Below(1024.0),
            "bytes",
            growth,
            "slope over 6,000 runs after 4,000 others, each in its own thread",
        )?,
    ])
}

fn resident(server: &Server) -> anyhow::Result<f64> {
    resident_bytes(server.pid().context("the server has exited")?)
}

/// Returns the growth of the server's resident memory per completed run, in bytes. Each run is in a new thread, so that
/// the model's context does not grow.
async fn growth_per_run(mode: Mode) -> anyhow::Result<f64> {
    let setup = ServerSetup::new().await?;
    let (server, api) = setup.start().await?;
    let deployments = api.create_many(mode.count(CLIENTS, 2)).await?;
    let batch = mode.count(25, 1);
    // The first runs are not measured, because they fill caches and pools, which would look like growth.
    for _ in 0..mode.count(8, 1) {
        complete_runs(&api, &deployments, batch).await?;
    }
    let mut points = vec![(0.0, resident(&server)?)];
    for number in 1..=mode.count(12, 2) {
        complete_runs(&api, &deployments, batch).await?;
        points.push(((number * batch * deployments.len()) as f64, resident(&server)?));
    }
    Ok(slope(&points))
}

/// Completes `runs` runs in each deployment. Different deployments execute runs concurrently, but each deployment
/// executes its runs one after the other.
async fn complete_runs(api: &Api, deployments: &[String], runs: usize) -> anyhow::Result<()> {
    let clients = deployments.iter().map(|deployment_id| async move {
        let mut stream = api.stream(deployment_id, "").await?;
        for _ in 0..runs {
            api.send(deployment_id, "new", "hello").await?;
            stream.wait_for_completion().await?;
        }
        anyhow::Ok(())
    });
    try_join_all(clients).await?;
    Ok(())
}
