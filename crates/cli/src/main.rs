//! The binary `herm`. Exit status: 0 done, 1 failed (one line on stderr says why), 2 bad usage.

mod api_options;
mod args;
mod demo;
mod doctor;
#[cfg(feature = "fault-points")]
mod fault;
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
        Err(error) => return failed(&anyhow::Error::new(error).context("failed to start")),
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
        Command::Migrate(place) => migrate::run(&place).await,
        Command::Version(version) => version.print(),
    }
}

#[expect(clippy::print_stderr, reason = "this is where a failed command says why")]
fn failed(error: &anyhow::Error) -> ExitCode {
    // One line, whatever the causes say.
    eprintln!("herm: {}", format!("{error:#}").replace('\n', " "));
    ExitCode::FAILURE
}
