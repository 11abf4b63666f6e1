//! The guest's connection to the server, with the loop that reconnects and handles the server's requests.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use herm_guest::protocol::{FromGuest, FromServer, VERSION, read_frame, write_frame};

use crate::command::Commands;

/// The delay between attempts to connect to the server.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(100);
/// The timeout of a write to the server. When it expires, the guest closes the connection and reconnects.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum time for the server to answer the hello frame. It is long enough for a busy machine. It is limited
/// because another process may impersonate the server and never answer, and the guest must not wait forever.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(30);

/// The sending side of the connection to the server. While there is no connection, frames are dropped: after the guest
/// has reconnected, the server requests output and results again.
#[derive(Clone, Default)]
pub(crate) struct Link(Arc<Mutex<Option<UnixStream>>>);

impl Link {
    pub(crate) fn send(&self, frame: &FromGuest) {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = stream.as_mut()
            && write_frame(open, frame).is_err()
        {
            // The write failed. Shut the connection down, so that the thread that reads from it gets an error and
            // reconnects.
            let _ = open.shutdown(std::net::Shutdown::Both);
            *stream = None;
        }
    }

    fn set(&self, stream: Option<UnixStream>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stream;
    }
}

/// The path of the server's socket, and the token that proves the guest's identity to the server.
pub(crate) struct Server {
    pub(crate) socket: PathBuf,
    pub(crate) token: String,
}

impl Server {
    /// Connects to the server, sends `hello` as the first frame and waits for the welcome frame.
    pub(crate) fn dial(&self, hello: &FromGuest) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        stream.set_read_timeout(Some(WELCOME_TIMEOUT))?;
        write_frame(&mut stream, hello)?;
        match read_frame(&mut stream)? {
            FromServer::Welcome { version: VERSION } => {}
            other => {
                return Err(io::Error::other(format!(
                    "expected a welcome frame of protocol version {VERSION}, got {other:?}"
                )));
            }
        }
        stream.set_read_timeout(None)?;
        Ok(stream)
    }
}

/// Connects to the server and handles its requests. Reconnects when the connection breaks. Returns when the server has
/// requested a shutdown, or when no connection was possible for `reconnect_timeout`.
pub(crate) fn serve(server: &Server, reconnect_timeout: Duration) {
    let link = Link::default();
    let commands = Commands::new(link.clone());
    let mut last_seen = Instant::now();
    loop {
        if let Ok(stream) = server.dial(&FromGuest::Hello { version: VERSION, token: server.token.clone() }) {
            let ended = serve_connection(stream, &link, &commands);
            link.set(None);
            if ended {
                return;
            }
            last_seen = Instant::now();
        }
        // Check the timeout directly after a failed attempt to connect, not after the pause. If the machine was
        // suspended during the pause, the server would seem to have been unreachable for that time.
        if last_seen.elapsed() >= reconnect_timeout {
            return;
        }
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "this program has no async runtime")]
fn pause() {
    std::thread::sleep(RECONNECT_INTERVAL);
}

/// Handles frames from the server until the connection breaks. Returns `true` if the server requested a shutdown.
fn serve_connection(stream: UnixStream, link: &Link, commands: &Commands) -> bool {
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
