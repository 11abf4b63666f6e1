//! The guest program: PID 1 in a sandbox. It connects to the server, runs commands for it, and retains each result
//! until the server acknowledges it. It also reaps orphaned processes and forwards connections to the server's egress
//! proxy. It exits if it cannot reach the server for too long. On the host, the same program launches local sandboxes
//! ([`launch`]).

mod command;
mod confine;
mod launch;
mod link;
mod proxy;
mod reaper;

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use confine::Limits;
use herm_guest::protocol::{SOCKET_FILE, TOKEN_FILE};
use link::Server;

/// The maximum number of bytes to read from the token file. Further bytes are ignored.
const MAX_TOKEN_BYTES: u64 = 256;

/// The command-line arguments that the server passes to the guest.
struct Arguments {
    /// The directory that contains the server's socket and, until the guest has connected, the token file.
    directory: PathBuf,
    reconnect_timeout: Duration,
    limits: Limits,
}

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == launch::SUBCOMMAND) {
        return failed(&launch::launch(std::env::args_os().skip(2)));
    }
    let Some(arguments) = arguments() else { return ExitCode::from(2) };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &io::Error) -> ExitCode {
    // The server reads the reason for a failed start from the guest's standard error output.
    let _ = writeln!(io::stderr(), "herm-guest: {error}");
    ExitCode::FAILURE
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let token = read_token(&arguments.directory)?;
    confine::confine(arguments.limits)?;
    let server = Arc::new(Server { socket: arguments.directory.join(SOCKET_FILE), token });
    reaper::start();
    proxy::start(Arc::clone(&server))?;
    link::serve(&server, arguments.reconnect_timeout);
    Ok(())
}

/// Parses the arguments in this order: directory, reconnect timeout in milliseconds, maximum number of processes,
/// maximum memory per process in bytes. The last two may be `-`, which means no limit. Returns `None` if the arguments
/// are invalid.
fn arguments() -> Option<Arguments> {
    let mut arguments = std::env::args_os().skip(1);
    let directory = PathBuf::from(arguments.next()?);
    let mut number = || {
        let text = arguments.next()?;
        let text = text.to_str()?;
        if text == "-" { Some(None) } else { text.parse::<u64>().ok().map(Some) }
    };
    let reconnect_timeout = Duration::from_millis(number()??);
    Some(Arguments {
        directory,
        reconnect_timeout,
        limits: Limits { processes: number()?, memory_bytes: number()? },
    })
}

/// Reads the token from a file in the directory of the socket. The server deletes the file when it accepts the guest,
/// before any command runs. The token is not passed as an argument or environment variable, because commands could read
/// those at any time.
fn read_token(directory: &Path) -> io::Result<String> {
    let mut token = String::new();
    std::fs::File::open(directory.join(TOKEN_FILE))?.take(MAX_TOKEN_BYTES).read_to_string(&mut token)?;
    if token.is_empty() {
        Err(io::Error::other(format!("the token file in {} is empty", directory.display())))
    } else {
        Ok(token)
    }
}
