//! The connection to the server, and what is said over it.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use herm_guest::protocol::{FromGuest, FromServer, VERSION, read_frame, write_frame};

use crate::command::Commands;

/// Between two attempts to dial.
const REDIAL_EVERY: Duration = Duration::from_millis(100);
/// How long a write may take: a server that does not read is as good as away.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// How long a server may take to answer a hello: one on a busy machine takes its time, an impostor that listens and is
/// silent must not hold the guest.
const WELCOME_LIMIT: Duration = Duration::from_secs(30);

/// The sending side; without a connection what is sent is dropped, as the server asks again when it is back.
#[derive(Clone, Default)]
pub(crate) struct Link(Arc<Mutex<Option<UnixStream>>>);

impl Link {
    pub(crate) fn send(&self, frame: &FromGuest) {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = stream.as_mut()
            && write_frame(open, frame).is_err()
        {
            // The reading side notices, and dials again.
            let _ = open.shutdown(std::net::Shutdown::Both);
            *stream = None;
        }
    }

    fn set(&self, stream: Option<UnixStream>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stream;
    }
}

/// Where the server is, and how it knows this program.
pub(crate) struct Server {
    pub(crate) socket: PathBuf,
    pub(crate) token: String,
}

impl Server {
    /// A connection on which the server has answered to `hello`.
    pub(crate) fn dial(&self, hello: &FromGuest) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_write_timeout(Some(WRITE_LIMIT))?;
        stream.set_read_timeout(Some(WELCOME_LIMIT))?;
        write_frame(&mut stream, hello)?;
        match read_frame(&mut stream)? {
            FromServer::Welcome { version: VERSION } => {}
            other => return Err(io::Error::other(format!("expected a welcome, not {other:?}"))),
        }
        stream.set_read_timeout(None)?;
        Ok(stream)
    }
}

/// Serves until it is told to shut down, or the server has been away for `away_limit`.
pub(crate) fn serve(server: &Server, away_limit: Duration) {
    let link = Link::default();
    let commands = Commands::new(link.clone());
    let mut last_seen = Instant::now();
    loop {
        if let Ok(stream) = server.dial(&FromGuest::Hello { version: VERSION, token: server.token.clone() }) {
            let ended = converse(stream, &link, &commands);
            link.set(None);
            if ended {
                return;
            }
            last_seen = Instant::now();
        }
        // Between an attempt and the next pause, so that a machine which stood still for long is no server that is away.
        if last_seen.elapsed() >= away_limit {
            return;
        }
        pause();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a program without an async runtime waits between two attempts"
)]
fn pause() {
    std::thread::sleep(REDIAL_EVERY);
}

/// Hears the server out; `true` if it asked for the end.
fn converse(stream: UnixStream, link: &Link, commands: &Commands) -> bool {
    let Ok(mut reader) = stream.try_clone() else { return false };
    link.set(Some(stream));
    loop {
        match read_frame(&mut reader) {
            Ok(FromServer::Exec(exec)) => commands.exec(exec),
            Ok(FromServer::Attach { exec_id }) => commands.attach(&exec_id),
            Ok(FromServer::Kill { exec_id }) => commands.kill(&exec_id),
            Ok(FromServer::Ack { exec_id }) => commands.forget(&exec_id),
            Ok(FromServer::Welcome { .. }) => {}
            Ok(FromServer::Shutdown) => return true,
            Err(_) => return false,
        }
    }
}
