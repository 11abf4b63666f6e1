//! `make bench`: measures the server as its users meet it, and keeps the figures in the performance reference.
//!
//! Each part starts servers of its own in a fresh directory beside the binary, on the disk that holds the build,
//! drives them over HTTP, and gives rows of a table. A scripted model of no latency runs in this process and shares
//! the machine's cores with the server.

mod api;
mod bed;
mod conversation;
mod drive;
mod frames;
mod machine;
mod parts;
mod plot;
mod report;
mod stats;
mod subject;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use crate::parts::{Part, Scale};
use crate::report::Row;

/// Measure the server, and write the figures into docs/reference/performance.md.
#[derive(Debug, Parser)]
#[command(name = "herm-bench")]
struct Args {
    /// Run everything with tiny counts, to see that it works; writes no file.
    #[arg(long)]
    quick: bool,
    /// What to measure; everything unless said.
    #[arg(value_enum)]
    parts: Vec<Part>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("herm-bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.quick || !cfg!(debug_assertions),
        "a debug build says nothing about speed: use `make bench`, or --quick to see that the parts work"
    );
    machine::raise_file_limit()?;
    let parts = if args.parts.is_empty() { Part::ALL.to_vec() } else { args.parts };
    let mut rows: Vec<Row> = Vec::new();
    for part in &parts {
        let measured = part.measure(Scale { quick: args.quick }).await;
        let measured = measured.with_context(|| format!("failed to measure {}", part.name()))?;
        for row in &measured.rows {
            say(&row.line());
        }
        if let Some(section) = &measured.section {
            say(&section.text);
        }
        if !args.quick {
            report::write_extras(&measured)?;
        }
        rows.extend(measured.rows);
        if !args.quick {
            // After each part, so that an error in a later one costs nothing.
            report::write(&parts, &rows)?;
        }
    }
    let missed = rows.iter().filter(|row| row.is_met() == Some(false)).count();
    say(&format!("{} figures, {missed} below their bar", rows.len()));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a program of the command line")]
fn say(line: &str) {
    println!("{line}");
}
