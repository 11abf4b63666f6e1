//! The guest: PID 1 in a sandbox. It dials the server, runs commands for it, keeps their results until they are
//! acknowledged, reaps what is orphaned, carries connections to the server, and ends itself when the server stays
//! away. On the host it also launches local sandboxes ([`launch`]).

mod carrier;
mod command;
mod confine;
mod launch;
mod link;
mod reaper;

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use confine::Limits;
use herm_guest::protocol::{SOCKET_FILE, TOKEN_FILE};
use link::Server;

/// The most bytes of a token.
const MAX_TOKEN_BYTES: u64 = 256;

/// What the server says at the start.
struct Arguments {
    /// Holds the server's socket and, until the guest has dialled, the token.
    directory: PathBuf,
    away_limit: Duration,
    limits: Limits,
}

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == launch::WORD) {
        return failed(&launch::launch(std::env::args_os().skip(2)));
    }
    let Some(arguments) = arguments() else { return ExitCode::from(2) };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &io::Error) -> ExitCode {
    // Whoever started this reads why.
    let _ = writeln!(io::stderr(), "herm-guest: {error}");
    ExitCode::FAILURE
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let token = read_token(&arguments.directory)?;
    confine::confine(arguments.limits)?;
    let server = Arc::new(Server { socket: arguments.directory.join(SOCKET_FILE), token });
    reaper::start();
    carrier::start(Arc::clone(&server))?;
    link::serve(&server, arguments.away_limit);
    Ok(())
}

/// Directory, milliseconds, processes, bytes of memory of each process; the last two may be `-`.
fn arguments() -> Option<Arguments> {
    let mut arguments = std::env::args_os().skip(1);
    let directory = PathBuf::from(arguments.next()?);
    let mut number = || {
        let text = arguments.next()?;
        let text = text.to_str()?;
        if text == "-" { Some(None) } else { text.parse::<u64>().ok().map(Some) }
    };
    let away_limit = Duration::from_millis(number()??);
    Some(Arguments {
        directory,
        away_limit,
        limits: Limits { processes: number()?, memory_bytes: number()? },
    })
}

/// The token lies beside the socket until the server has let the guest in, which is before any command runs: so no
/// argument and no variable has it, which others could read.
fn read_token(directory: &Path) -> io::Result<String> {
    let mut token = String::new();
    std::fs::File::open(directory.join(TOKEN_FILE))?.take(MAX_TOKEN_BYTES).read_to_string(&mut token)?;
    if token.is_empty() { Err(io::Error::other("the token is empty")) } else { Ok(token) }
}
