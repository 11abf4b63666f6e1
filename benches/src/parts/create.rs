//! Creating deployments, one after the other.

use std::time::Instant;

use super::{Part, Scale, ms};
use crate::bed::Bed;
use crate::report::{Bar, Row};
use crate::stats::Samples;

pub(super) async fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let bed = Bed::new().await?;
    let (_server, api) = bed.start().await?;
    api.create_many(scale.of(20, 1)).await?;
    let (mut medians, mut tails) = (Vec::new(), Vec::new());
    for _ in 0..scale.of(5, 1) {
        let mut taken = Vec::new();
        for _ in 0..scale.of(500, 10) {
            let begun = Instant::now();
            api.create().await?;
            taken.push(ms(begun.elapsed()));
        }
        let taken = Samples::new(taken)?;
        medians.push(taken.median());
        tails.push(taken.percentile(99));
    }
    let note = "500 in a row, one client";
    Ok(vec![
        Part::Create.row("create a deployment, p50", Bar::Below(5.0), "ms", medians, note)?,
        Part::Create.row("create a deployment, p99", Bar::None, "ms", tails, note)?,
    ])
}
