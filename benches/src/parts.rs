//! What is measured: one module for each part.

mod bytes;
mod create;
mod egress;
mod first_token;
mod load;
mod memory;
mod peers;
mod sandbox;
mod scale;
mod start;
mod streams;
mod throughput;
mod write_path;

use crate::report::{Bar, Measured, Row};
use crate::stats::Samples;

/// A part of the bench, by the name it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    Start,
    Create,
    FirstToken,
    Throughput,
    Memory,
    Sandbox,
    Egress,
    Streams,
    Bytes,
    WritePath,
    Scale,
    Load,
    Peers,
}

/// How much is done: enough to say something, or as little as shows that it works.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) quick: bool,
}

impl Scale {
    pub(crate) fn of(self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }
}

impl Part {
    pub(crate) const ALL: [Self; 13] = [
        Self::Start,
        Self::Create,
        Self::FirstToken,
        Self::Throughput,
        Self::Memory,
        Self::Sandbox,
        Self::Egress,
        Self::Streams,
        Self::Bytes,
        Self::WritePath,
        Self::Scale,
        Self::Load,
        Self::Peers,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Create => "create",
            Self::FirstToken => "first-token",
            Self::Throughput => "throughput",
            Self::Memory => "memory",
            Self::Sandbox => "sandbox",
            Self::Egress => "egress",
            Self::Streams => "streams",
            Self::Bytes => "bytes",
            Self::WritePath => "write-path",
            Self::Scale => "scale",
            Self::Load => "load",
            Self::Peers => "peers",
        }
    }

    pub(crate) async fn measure(self, scale: Scale) -> anyhow::Result<Measured> {
        let rows = match self {
            Self::Scale => return scale::measure(scale).await,
            Self::Load => return load::measure(scale).await,
            Self::Peers => return peers::measure(scale).await,
            Self::Start => start::measure(scale).await?,
            Self::Create => create::measure(scale).await?,
            Self::FirstToken => first_token::measure(scale).await?,
            Self::Throughput => throughput::measure(scale).await?,
            Self::Memory => memory::measure(scale).await?,
            Self::Sandbox => sandbox::measure(scale).await?,
            Self::Egress => egress::measure(scale).await?,
            Self::Streams => streams::measure(scale).await?,
            Self::Bytes => bytes::measure(scale).await?,
            Self::WritePath => write_path::measure(scale).await?,
        };
        Ok(rows.into())
    }

    /// A row of this part; `values` has one value for each repetition.
    fn row(
        self,
        what: impl Into<String>,
        bar: Bar,
        unit: &'static str,
        values: Vec<f64>,
        note: impl Into<String>,
    ) -> anyhow::Result<Row> {
        Ok(Row { part: self, what: what.into(), bar, unit, values: Samples::new(values)?, note: note.into() })
    }
}

/// A duration in milliseconds.
fn ms(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
