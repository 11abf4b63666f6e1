//! The door of a sandbox: whoever inside finds the socket can dial, and only the guest is let in.

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
use crate::place::Place;

/// How long a caller may take to say hello: a guest on a busy machine is let wait between its call and its hello.
const HELLO_LIMIT: Duration = Duration::from_secs(30);
/// The most bytes of a hello.
const MAX_HELLO_BYTES: usize = 512;
/// Callers that may be silent at the same time. One more, and the one that was silent for longest is sent away: the
/// guest is not among them, as it says hello at once.
const MAX_CALLERS: usize = 32;
/// After the system refused to give a caller's connection, for want of descriptors perhaps.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Takes a connection that a program in the sandbox of this id made to the proxy.
pub type Carry = Arc<dyn Fn(&str, UnixStream) + Send + Sync>;

/// Who is let in.
enum Caller {
    Guest(UnixStream),
    /// A program's connection to the proxy, which the guest carries.
    Carried(UnixStream),
}

/// What the door knows of its sandbox.
struct Guard {
    sandbox_id: String,
    token: String,
    /// The guest's copy of the token: it is gone before the guest, and with it any command, has the server's ear.
    guest_token_file: PathBuf,
}

/// Listens for the guest.
pub(crate) struct Door {
    listener: UnixListener,
    guard: Arc<Guard>,
    carry: Carry,
    callers: JoinSet<Result<Caller, Refusal>>,
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
    #[error("its copy of the token cannot be removed: {0}")]
    Exposed(io::Error),
    #[error("it hung up")]
    HungUp,
}

impl Door {
    pub(crate) fn new(listener: UnixListener, place: &Place, token: String, carry: Carry) -> Self {
        let guest_token_file = place.guest_token_file();
        Self {
            listener,
            guard: Arc::new(Guard { sandbox_id: place.sandbox_id().to_owned(), token, guest_token_file }),
            carry,
            callers: JoinSet::new(),
            by_age: VecDeque::new(),
            has_warned: false,
        }
    }

    /// Waits for the guest. Nothing is lost if the wait is given up.
    pub(crate) async fn next(&mut self) -> UnixStream {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => self.hear_out(stream),
                    Err(error) => self.pause(&error).await,
                },
                Some(heard) = self.callers.join_next() => match heard {
                    Ok(Ok(Caller::Guest(stream))) => return stream,
                    Ok(Ok(Caller::Carried(stream))) => (self.carry)(&self.guard.sandbox_id, stream),
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
        let guard = Arc::clone(&self.guard);
        self.by_age.push_back(self.callers.spawn(async move {
            timeout(HELLO_LIMIT, greet(stream, &guard)).await.unwrap_or(Err(Refusal::Silent))
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
async fn greet(mut stream: UnixStream, guard: &Guard) -> Result<Caller, Refusal> {
    let (version, said, is_carried) = match read_frame(&mut stream, MAX_HELLO_BYTES).await {
        Ok(FromGuest::Hello { version, token }) => (version, token, false),
        Ok(FromGuest::Carry { version, token }) => (version, token, true),
        _ => return Err(Refusal::NoHello),
    };
    if version != VERSION {
        return Err(Refusal::Version(version));
    }
    if !is_same(&said, &guard.token) {
        return Err(Refusal::Token);
    }
    if !is_carried {
        match std::fs::remove_file(&guard.guest_token_file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Refusal::Exposed(error)),
            _ => {}
        }
    }
    let welcome = encode(&FromServer::Welcome { version: VERSION }).map_err(|_| Refusal::HungUp)?;
    stream.write_all(&welcome).await.map_err(|_| Refusal::HungUp)?;
    Ok(if is_carried { Caller::Carried(stream) } else { Caller::Guest(stream) })
}

/// Takes the same time wherever the first difference is.
fn is_same(said: &str, token: &str) -> bool {
    let differs = said.bytes().zip(token.bytes()).fold(0, |differs, (said, known)| differs | (said ^ known));
    said.len() == token.len() && std::hint::black_box(differs) == 0
}
