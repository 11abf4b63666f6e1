//! Measures the time from starting the server process until the server reports that it accepts requests.

use std::time::Instant;

use super::{Mode, Part, ms};
use crate::report::{Row, Target};
use crate::setup::{ServerSetup, stop};

/// The number of deployments in the data directory, for the measurement with existing data.
const DEPLOYMENTS: usize = 100;
const TARGET_MS: f64 = 150.0;

pub(super) async fn measure(mode: Mode) -> anyhow::Result<Vec<Row>> {
    let starts = mode.count(20, 2);
    let mut empty = Vec::new();
    for _ in 0..starts {
        empty.push(start_ms(&ServerSetup::new().await?).await?);
    }
    let setup = ServerSetup::new().await?;
    let (server, api) = setup.start().await?;
    api.create_many(mode.count(DEPLOYMENTS, 2)).await?;
    stop(server).await?;
    let mut existing = Vec::new();
    for _ in 0..starts {
        existing.push(start_ms(&setup).await?);
    }
    Ok(vec![
        Part::Start.row(
            "start to ready, empty data directory",
            Target::Below(TARGET_MS),
            "ms",
            empty,
            "creates the database",
        )?,
        Part::Start.row(
            "start to ready, existing data directory",
            Target::Below(TARGET_MS),
            "ms",
            existing,
            "100 deployments",
        )?,
    ])
}

async fn start_ms(setup: &ServerSetup) -> anyhow::Result<f64> {
    let started = Instant::now();
    let (server, _) = setup.start().await?;
    let duration_ms = ms(started.elapsed());
    stop(server).await?;
    Ok(duration_ms)
}
