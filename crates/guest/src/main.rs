//! The guest: PID 1 in a sandbox. It dials the server, runs commands for it, keeps their results until they are
//! acknowledged, reaps what is orphaned, and ends itself when the server stays away.

mod command;
mod link;
mod reaper;

use std::io::{self, BufRead as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Open files of one command.
const MAX_OPEN_FILES: u64 = 4096;
/// Processes and threads in the sandbox. Each command that runs takes four threads of this program.
const MAX_PROCESSES: u64 = 1024;

fn main() -> ExitCode {
    let Some((socket, away_limit)) = arguments() else { return ExitCode::from(2) };
    let Some(token) = read_token() else { return ExitCode::FAILURE };
    // No command may read this process's memory, where the token is.
    let hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if hidden.is_err() || set_limits().is_err() {
        return ExitCode::FAILURE;
    }
    reaper::start();
    link::serve(&socket, &token, away_limit);
    ExitCode::SUCCESS
}

/// The server's socket, and how long it may stay away, in milliseconds.
fn arguments() -> Option<(PathBuf, Duration)> {
    let mut arguments = std::env::args_os().skip(1);
    let socket = PathBuf::from(arguments.next()?);
    let away_ms = arguments.next()?.to_str()?.parse().ok()?;
    Some((socket, Duration::from_millis(away_ms)))
}

/// The token comes as a line on standard input: not as an argument or a variable, which others could read. Without
/// one, whoever started this has gone.
fn read_token() -> Option<String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).ok()?;
    line.strip_suffix('\n').filter(|token| !token.is_empty()).map(str::to_owned)
}

/// What commands inherit.
fn set_limits() -> io::Result<()> {
    let limits = [(Resource::Core, 0), (Resource::Nofile, MAX_OPEN_FILES), (Resource::Nproc, MAX_PROCESSES)];
    for (resource, most) in limits {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    Ok(())
}
