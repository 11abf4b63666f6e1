//! Measures the time to create a deployment. A single client creates deployments one after the other.

use std::time::Instant;

use super::{Mode, Part, ms};
use crate::report::{Row, Target};
use crate::setup::ServerSetup;
use crate::stats::Samples;

pub(super) async fn measure(mode: Mode) -> anyhow::Result<Vec<Row>> {
    let setup = ServerSetup::new().await?;
    let (_server, api) = setup.start().await?;
    api.create_many(mode.count(20, 1)).await?;
    let (mut medians, mut p99s) = (Vec::new(), Vec::new());
    for _ in 0..mode.count(5, 1) {
        let mut durations = Vec::new();
        for _ in 0..mode.count(500, 10) {
            let started = Instant::now();
            api.create().await?;
            durations.push(ms(started.elapsed()));
        }
        let durations = Samples::new(durations)?;
        medians.push(durations.median());
        p99s.push(durations.percentile(99));
    }
    let note = "500 in sequence, one client";
    Ok(vec![
        Part::Create.row("create a deployment, p50", Target::Below(5.0), "ms", medians, note)?,
        Part::Create.row("create a deployment, p99", Target::None, "ms", p99s, note)?,
    ])
}
