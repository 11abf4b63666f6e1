//! The parts of the benchmark. Each part measures one aspect of the server and is one module.

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

use crate::report::{Measured, Row, Target};
use crate::stats::Samples;

/// The name of a part of the benchmark, on the command line and in the table of results.
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

/// The mode that determines how much work a part does. The quick mode only checks that the benchmark works.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    pub(crate) quick: bool,
}

impl Mode {
    /// Returns `quick` in the quick mode, and `full` otherwise.
    pub(crate) fn count(self, full: usize, quick: usize) -> usize {
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

    pub(crate) async fn measure(self, mode: Mode) -> anyhow::Result<Measured> {
        let rows = match self {
            Self::Scale => return scale::measure(mode).await,
            Self::Load => return load::measure(mode).await,
            Self::Peers => return peers::measure(mode).await,
            Self::Start => start::measure(mode).await?,
            Self::Create => create::measure(mode).await?,
            Self::FirstToken => first_token::measure(mode).await?,
            Self::Throughput => throughput::measure(mode).await?,
            Self::Memory => memory::measure(mode).await?,
            Self::Sandbox => sandbox::measure(mode).await?,
            Self::Egress => egress::measure(mode).await?,
            Self::Streams => streams::measure(mode).await?,
            Self::Bytes => bytes::measure(mode).await?,
            Self::WritePath => write_path::measure(mode).await?,
        };
        Ok(rows.into())
    }

    /// Creates a row of the table for this part. `values` contains one measured value for each repetition.
    fn row(
        self,
        label: impl Into<String>,
        target: Target,
        unit: &'static str,
        values: Vec<f64>,
        note: impl Into<String>,
    ) -> anyhow::Result<Row> {
        Ok(Row {
            part: self,
            label: label.into(),
            target,
            unit,
            values: Samples::new(values)?,
            note: note.into(),
        })
    }
}

/// Converts a duration to milliseconds.
fn ms(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
