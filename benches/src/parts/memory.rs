//! Resident memory: of an idle server, with many idle deployments, and what each run leaves behind.

use anyhow::Context as _;
use futures_util::future::try_join_all;
use herm_testkit::process::Server;

use super::{Part, Scale};
use crate::api::Api;
use crate::bed::{Bed, settle, stop};
use crate::machine::resident_bytes;
use crate::report::{Bar, Row};
use crate::stats::slope;

/// Clients that make deployments or send messages side by side.
const CLIENTS: usize = 20;
const MB: f64 = 1e6;

pub(super) async fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let (mut idle, mut full, mut restarted) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..scale.of(3, 1) {
        let bed = Bed::new().await?;
        let (server, api) = bed.start().await?;
        settle().await;
        idle.push(resident(&server)? / MB);
        let each = scale.of(500, 1);
        try_join_all((0..CLIENTS).map(|_| api.create_many(each))).await?;
        settle().await;
        full.push(resident(&server)? / MB);
        stop(server).await?;
        let (server, _) = bed.start().await?;
        settle().await;
        restarted.push(resident(&server)? / MB);
    }
    let mut growth = Vec::new();
    for _ in 0..scale.of(3, 1) {
        growth.push(growth_per_run(scale).await?);
    }
    let row = |what: &str, bar, unit, values, note: &str| Part::Memory.row(what, bar, unit, values, note);
    Ok(vec![
        row("resident, idle", Bar::Below(40.0), "MB", idle, "2 s after the start")?,
        row("resident, 10,000 idle deployments", Bar::Below(80.0), "MB", full, "the process that made them")?,
        row("resident, 10,000 idle deployments, started anew", Bar::Below(80.0), "MB", restarted, "")?,
        row(
            "growth per run",
            Bar::Below(1024.0),
            "bytes",
            growth,
            "slope over 6,000 runs, after 4,000; none is asked",
        )?,
    ])
}

fn resident(server: &Server) -> anyhow::Result<f64> {
    resident_bytes(server.pid().context("the server has ended")?)
}

/// The slope of resident memory over the runs completed, in bytes. Each run has a thread of its own, so that no
/// context grows.
async fn growth_per_run(scale: Scale) -> anyhow::Result<f64> {
    let bed = Bed::new().await?;
    let (server, api) = bed.start().await?;
    let deployments = api.create_many(scale.of(CLIENTS, 2)).await?;
    let batch = scale.of(25, 1);
    // What is kept for reuse is filled first.
    for _ in 0..scale.of(8, 1) {
        run_each(&api, &deployments, batch).await?;
    }
    let mut points = vec![(0.0, resident(&server)?)];
    for number in 1..=scale.of(12, 2) {
        run_each(&api, &deployments, batch).await?;
        points.push(((number * batch * deployments.len()) as f64, resident(&server)?));
    }
    Ok(slope(&points))
}

/// So many runs on each deployment, side by side.
async fn run_each(api: &Api, deployments: &[String], runs: usize) -> anyhow::Result<()> {
    let clients = deployments.iter().map(|deployment_id| async move {
        let mut frames = api.stream(deployment_id, "").await?;
        for _ in 0..runs {
            api.send(deployment_id, "new", "hello").await?;
            frames.until_completed().await?;
        }
        anyhow::Ok(())
    });
    try_join_all(clients).await?;
    Ok(())
}
