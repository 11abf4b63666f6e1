//! From starting the process to the line that says it takes requests.

use std::time::Instant;

use super::{Part, Scale, ms};
use crate::bed::{Bed, stop};
use crate::report::{Bar, Row};

/// Deployments in the data directory that is there already.
const DEPLOYMENTS: usize = 100;
const BAR_MS: f64 = 150.0;

pub(super) async fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let starts = scale.of(20, 2);
    let mut fresh = Vec::new();
    for _ in 0..starts {
        fresh.push(one_start(&Bed::new().await?).await?);
    }
    let bed = Bed::new().await?;
    let (server, api) = bed.start().await?;
    api.create_many(scale.of(DEPLOYMENTS, 2)).await?;
    stop(server).await?;
    let mut existing = Vec::new();
    for _ in 0..starts {
        existing.push(one_start(&bed).await?);
    }
    Ok(vec![
        Part::Start.row(
            "start to ready, empty data directory",
            Bar::Below(BAR_MS),
            "ms",
            fresh,
            "makes the database",
        )?,
        Part::Start.row(
            "start to ready, existing data directory",
            Bar::Below(BAR_MS),
            "ms",
            existing,
            "100 deployments",
        )?,
    ])
}

async fn one_start(bed: &Bed) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let (server, _) = bed.start().await?;
    let taken = ms(begun.elapsed());
    stop(server).await?;
    Ok(taken)
}
