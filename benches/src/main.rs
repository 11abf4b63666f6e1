//! `make bench`: measures the server through its API and writes the figures into the performance reference.
//!
//! The benchmark consists of parts. Each part starts its own servers, sends HTTP requests to them, and returns the
//! measured values as rows of a table. The servers store their data in a new directory next to the binary, on the same
//! disk as the build. A scripted model, which replies without latency, runs inside the benchmark process. The benchmark
//! and the servers share the CPU cores of the machine.

mod api;
mod conversation;
mod event_stream;
mod machine;
mod parts;
mod plot;
mod report;
mod setup;
mod stats;
mod subject;
mod turns;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use crate::parts::{Mode, Part};
use crate::report::Row;

/// Measures the server and writes the figures into docs/reference/performance.md.
#[derive(Debug, Parser)]
#[command(name = "herm-bench")]
struct Args {
    /// Run all parts with minimal amounts of work, to check that the benchmark works. Writes no file.
    #[arg(long)]
    quick: bool,
    /// The parts of the benchmark to run. The default is all parts.
    #[arg(value_enum)]
    parts: Vec<Part>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_line(&format!("herm-bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.quick || !cfg!(debug_assertions),
        "a debug build gives meaningless figures: use `make bench`, or --quick to check that the parts work"
    );
    machine::raise_file_limit()?;
    let parts = if args.parts.is_empty() { Part::ALL.to_vec() } else { args.parts };
    let mut rows: Vec<Row> = Vec::new();
    for part in &parts {
        let measured = part.measure(Mode { quick: args.quick }).await;
        let measured = measured.with_context(|| format!("failed to measure {}", part.name()))?;
        for row in &measured.rows {
            print_line(&row.terminal_line());
        }
        if let Some(section) = &measured.section {
            print_line(&section.text);
        }
        if !args.quick {
            report::write_extras(&measured)?;
        }
        rows.extend(measured.rows);
        if !args.quick {
            // The page is written after each part, so that the figures of earlier parts are not lost if a later part
            // fails.
            report::write(&parts, &rows)?;
        }
    }
    let missed = rows.iter().filter(|row| row.is_met() == Some(false)).count();
    print_line(&format!("{} figures, {missed} missed their target", rows.len()));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a command line program prints its results")]
fn print_line(line: &str) {
    println!("{line}");
}
