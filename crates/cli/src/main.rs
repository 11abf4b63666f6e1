//! The binary `herm`. Exit status: 0 for success, 1 for failure (one line on stderr explains it), 2 for
//! invalid usage.

mod api_options;
mod args;
mod demo;
mod doctor;
#[cfg(feature = "failpoints")]
mod failpoint;
mod keys;
mod logging;
mod master_key;
mod migrate;
mod open;
mod serve;
mod server;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Args, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::new(error).context("failed to start the async runtime")),
    };
    match runtime.block_on(run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Serve(serve) => serve::run(serve).await,
        Command::Demo(demo) => demo::run(demo).await,
        Command::Keys(keys) => keys::run(keys).await,
        Command::Doctor(doctor) => doctor::run(doctor).await,
        Command::Migrate(location) => migrate::run(&location).await,
        Command::Version(version) => version.print(),
    }
}

#[expect(clippy::print_stderr, reason = "prints the error of a failed command")]
fn failed(error: &anyhow::Error) -> ExitCode {
    // The causes of an error may contain line breaks, but the output must be one line.
    eprintln!("herm: {}", format!("{error:#}").replace('\n', " "));
    ExitCode::FAILURE
}
