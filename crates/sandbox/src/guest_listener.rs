//! Accepts connections from a sandbox's guest on a Unix socket. Any process in the sandbox can connect to the socket,
//! but connections that do not present the guest token are rejected.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use herm_guest::protocol::{FromGuest, FromServer, VERSION, encode};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::connection::read_frame;
use crate::sandbox_dir::SandboxDir;

/// The maximum time from accepting a connection to receiving its first frame. If it takes longer, the connection is
/// closed. The limit is long because, on a busy machine, the guest may have to wait for the CPU between connecting and
/// sending the frame.
const HELLO_TIMEOUT: Duration = Duration::from_secs(30);
/// The maximum size of the first frame of a connection, in bytes. Larger frames are rejected.
const MAX_HELLO_BYTES: usize = 512;
/// The maximum number of connections that have not completed the handshake. If there are more, the oldest one is
/// closed. The guest itself is normally not affected: it sends its first frame immediately, so its handshake ends
/// before that many newer connections arrive.
const MAX_HANDSHAKES: usize = 32;
/// The delay before `accept` is retried after an error, for example because this process has no free file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Called for each connection that a program in a sandbox makes to the egress proxy. The arguments are the sandbox's id
/// and the connection.
pub type ProxyHandler = Arc<dyn Fn(&str, UnixStream) + Send + Sync>;

/// A connection that has presented the correct guest token.
enum Connection {
    Guest(UnixStream),
    /// A program's connection to the egress proxy, forwarded by the guest.
    Proxied(UnixStream),
}

/// The sandbox's id, and the guest token that every connection from the sandbox's guest must present.
struct GuestCredentials {
    sandbox_id: String,
    token: String,
    /// The path of the token file that the guest reads. The file is deleted before the guest is accepted, so that
    /// commands cannot read it.
    guest_token_file: PathBuf,
}

/// Accepts the connections of one sandbox's guest and checks their tokens.
pub(crate) struct GuestListener {
    listener: UnixListener,
    credentials: Arc<GuestCredentials>,
    proxy_handler: ProxyHandler,
    handshakes: JoinSet<Result<Connection, Rejection>>,
    /// The abort handles of the tasks in `handshakes`, oldest first.
    handshakes_by_age: VecDeque<AbortHandle>,
    has_warned: bool,
}

/// The reason why a connection was rejected. It is logged, so it contains no text that the peer sent.
#[derive(Debug, thiserror::Error)]
enum Rejection {
    #[error("the peer sent no complete frame within {} s", HELLO_TIMEOUT.as_secs())]
    Timeout,
    #[error("the connection does not begin with a valid hello or carry frame")]
    UnexpectedFrame,
    #[error("the peer uses protocol version {0}, not {VERSION}")]
    Version(u32),
    #[error("the token is wrong")]
    Token,
    #[error("failed to delete the guest's copy of the token: {0}")]
    TokenNotRemoved(io::Error),
    #[error("the peer closed the connection")]
    Disconnected,
}

impl GuestListener {
    pub(crate) fn sandbox_id(&self) -> &str {
        &self.credentials.sandbox_id
    }

    pub(crate) fn new(
        listener: UnixListener,
        sandbox_dir: &SandboxDir,
        token: String,
        proxy_handler: ProxyHandler,
    ) -> Self {
        let guest_token_file = sandbox_dir.guest_token_file();
        Self {
            listener,
            credentials: Arc::new(GuestCredentials {
                sandbox_id: sandbox_dir.sandbox_id().to_owned(),
                token,
                guest_token_file,
            }),
            proxy_handler,
            handshakes: JoinSet::new(),
            handshakes_by_age: VecDeque::new(),
            has_warned: false,
        }
    }

    /// Waits until the guest opens a connection on which to receive the server's requests, and returns that connection.
    /// Meanwhile, calls the proxy handler for each connection that the guest forwards to the egress proxy. Safe to
    /// cancel: no connection is lost.
    pub(crate) async fn next(&mut self) -> UnixStream {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => self.spawn_handshake(stream),
                    Err(error) => self.pause_accepting(&error).await,
                },
                Some(result) = self.handshakes.join_next() => match result {
                    Ok(Ok(Connection::Guest(stream))) => return stream,
                    Ok(Ok(Connection::Proxied(stream))) => (self.proxy_handler)(&self.credentials.sandbox_id, stream),
                    Ok(Err(rejection)) => self.warn_once(&rejection),
                    // The handshake was aborted because too many were pending.
                    Err(_) => {}
                },
            }
        }
    }

    fn spawn_handshake(&mut self, stream: UnixStream) {
        self.handshakes_by_age.retain(|handshake| !handshake.is_finished());
        if self.handshakes_by_age.len() >= MAX_HANDSHAKES
            && let Some(oldest) = self.handshakes_by_age.pop_front()
        {
            oldest.abort();
        }
        let credentials = Arc::clone(&self.credentials);
        self.handshakes_by_age.push_back(self.handshakes.spawn(async move {
            timeout(HELLO_TIMEOUT, handshake(stream, &credentials)).await.unwrap_or(Err(Rejection::Timeout))
        }));
    }

    async fn pause_accepting(&mut self, error: &io::Error) {
        tracing::warn!(sandbox_id = self.credentials.sandbox_id, %error, "failed to accept a connection on the sandbox's guest socket");
        sleep(ACCEPT_RETRY_DELAY).await;
    }

    /// Logs only the first rejected connection, because programs in the sandbox can connect any number of times.
    fn warn_once(&mut self, rejection: &Rejection) {
        if !self.has_warned {
            self.has_warned = true;
            tracing::warn!(sandbox_id = self.credentials.sandbox_id, %rejection, "rejected a connection to the sandbox's guest socket; further rejections are not logged");
        }
    }
}

/// Performs the server's side of the handshake: reads the first frame of a connection, checks the protocol version and
/// the token in it, and sends the welcome frame.
async fn handshake(mut stream: UnixStream, credentials: &GuestCredentials) -> Result<Connection, Rejection> {
    let (version, presented_token, is_proxied) = match read_frame(&mut stream, MAX_HELLO_BYTES).await {
        Ok(FromGuest::Hello { version, token }) => (version, token, false),
        Ok(FromGuest::Carry { version, token }) => (version, token, true),
        _ => return Err(Rejection::UnexpectedFrame),
    };
    if version != VERSION {
        return Err(Rejection::Version(version));
    }
    if !constant_time_eq(&presented_token, &credentials.token) {
        return Err(Rejection::Token);
    }
    if !is_proxied {
        match std::fs::remove_file(&credentials.guest_token_file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Rejection::TokenNotRemoved(error));
            }
            _ => {}
        }
    }
    let welcome = encode(&FromServer::Welcome { version: VERSION }).map_err(|_| Rejection::Disconnected)?;
    stream.write_all(&welcome).await.map_err(|_| Rejection::Disconnected)?;
    Ok(if is_proxied { Connection::Proxied(stream) } else { Connection::Guest(stream) })
}

/// Compares two strings in constant time, so that the duration does not reveal where they first differ.
fn constant_time_eq(left: &str, right: &str) -> bool {
    let differs = left.bytes().zip(right.bytes()).fold(0, |differs, (left, right)| differs | (left ^ right));
    left.len() == right.len() && std::hint::black_box(differs) == 0
}
