//! The door of a sandbox: whoever inside finds the socket can dial, and only the guest is let in.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use herm_guest::protocol::{FromGuest, FromServer, VERSION, encode};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::connection::read_frame;

/// How long a caller may take to say hello.
const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// The most bytes of a hello.
const MAX_HELLO_BYTES: usize = 512;
/// Callers that may be silent at the same time. One more, and the one that was silent for longest is sent away: the
/// guest is not among them, as it says hello at once.
const MAX_CALLERS: usize = 32;
/// After the system refused to give a caller's connection, for want of descriptors perhaps.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Listens for the guest.
pub(super) struct Door {
    listener: UnixListener,
    token: Arc<str>,
    callers: JoinSet<Result<UnixStream, Refusal>>,
    /// The same callers, who came first at the front.
    by_age: VecDeque<AbortHandle>,
    has_warned: bool,
}

/// Why a caller was not let in. Nothing that it said is kept: it would end up in the log.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("it said nothing for {} s", HELLO_LIMIT.as_secs())]
    Silent,
    #[error("it did not say hello as a guest does")]
    NoHello,
    #[error("it speaks version {0} of the protocol")]
    Version(u32),
    #[error("it does not know the token")]
    Token,
    #[error("it hung up")]
    HungUp,
}

impl Door {
    pub(super) fn new(listener: UnixListener, token: &str) -> Self {
        Self {
            listener,
            token: token.into(),
            callers: JoinSet::new(),
            by_age: VecDeque::new(),
            has_warned: false,
        }
    }

    /// Waits for the guest. Nothing is lost if the wait is given up.
    pub(super) async fn next(&mut self) -> UnixStream {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => self.hear_out(stream),
                    Err(error) => self.pause(&error).await,
                },
                Some(heard) = self.callers.join_next() => match heard {
                    Ok(Ok(stream)) => return stream,
                    Ok(Err(refusal)) => self.warn(&refusal),
                    // Sent away to make room.
                    Err(_) => {}
                },
            }
        }
    }

    fn hear_out(&mut self, stream: UnixStream) {
        self.by_age.retain(|caller| !caller.is_finished());
        if self.by_age.len() >= MAX_CALLERS
            && let Some(oldest) = self.by_age.pop_front()
        {
            oldest.abort();
        }
        let token = Arc::clone(&self.token);
        self.by_age.push_back(self.callers.spawn(async move {
            timeout(HELLO_LIMIT, greet(stream, &token)).await.unwrap_or(Err(Refusal::Silent))
        }));
    }

    async fn pause(&mut self, error: &io::Error) {
        tracing::warn!(%error, "failed to take a call from a sandbox");
        sleep(REFUSED_PAUSE).await;
    }

    /// Warns once: what is inside can call as often as it likes.
    fn warn(&mut self, refusal: &Refusal) {
        if !self.has_warned {
            self.has_warned = true;
            tracing::warn!(%refusal, "something in a sandbox that is not its guest dialled the server");
        }
    }
}

/// Hears a caller's hello, and lets it in if it knows the token.
async fn greet(mut stream: UnixStream, token: &str) -> Result<UnixStream, Refusal> {
    match read_frame(&mut stream, MAX_HELLO_BYTES).await {
        Ok(FromGuest::Hello { version: VERSION, token: said }) if is_same(&said, token) => {}
        Ok(FromGuest::Hello { version: VERSION, .. }) => return Err(Refusal::Token),
        Ok(FromGuest::Hello { version, .. }) => return Err(Refusal::Version(version)),
        _ => return Err(Refusal::NoHello),
    }
    let welcome = encode(&FromServer::Welcome { version: VERSION }).map_err(|_| Refusal::HungUp)?;
    stream.write_all(&welcome).await.map_err(|_| Refusal::HungUp)?;
    Ok(stream)
}

/// Takes the same time wherever the first difference is.
fn is_same(said: &str, token: &str) -> bool {
    let differs = said.bytes().zip(token.bytes()).fold(0, |differs, (said, known)| differs | (said ^ known));
    said.len() == token.len() && std::hint::black_box(differs) == 0
}
