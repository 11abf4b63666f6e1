//! The connection to one guest: commands go out, results come in, across broken connections.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use herm_guest::protocol::{FromGuest, FromServer, Rest, Stream, VERSION, decode, decode_length, encode};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::{Error, Outcome};

/// How long a guest may stay away before it counts as dead; it dials every 100 ms.
const REDIAL_LIMIT: Duration = Duration::from_secs(3);
/// How long a dialler may take to say hello.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

type Answer = oneshot::Sender<Result<Option<Outcome>, Error>>;

/// A command whose result is awaited.
struct Awaited {
    /// What is said about it on each new connection; the guest begins no command twice.
    ask: FromServer,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    answers: Vec<Answer>,
}

/// Where a guest stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Starting,
    Connected,
    Dead,
}

/// What both sides of the connection's task share.
pub(super) struct Guest {
    awaited: Mutex<HashMap<String, Awaited>>,
    outbox: mpsc::UnboundedSender<FromServer>,
    life: watch::Sender<Life>,
    /// Set once the guest is told to end, or has ended: no other connection is awaited.
    is_over: watch::Sender<bool>,
    pid: Mutex<Option<Pid>>,
}

impl Guest {
    /// Listens for the guest, on a task of its own that ends with the guest.
    pub(super) fn listen(listener: UnixListener, token: String, first_limit: Duration) -> Arc<Self> {
        let (outbox, outgoing) = mpsc::unbounded_channel();
        let guest = Arc::new(Self {
            awaited: Mutex::default(),
            outbox,
            life: watch::Sender::new(Life::Starting),
            is_over: watch::Sender::new(false),
            pid: Mutex::default(),
        });
        tokio::spawn(serve(Arc::clone(&guest), listener, token, outgoing, first_limit));
        guest
    }

    fn awaited(&self) -> MutexGuard<'_, HashMap<String, Awaited>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_dead(&self) -> bool {
        *self.life.borrow() == Life::Dead
    }

    /// Waits until the guest is there; `false` if it has died.
    pub(super) async fn connected(&self) -> bool {
        let mut life = self.life.subscribe();
        let life = life.wait_for(|life| *life != Life::Starting).await;
        life.is_ok_and(|life| *life == Life::Connected)
    }

    /// Waits until the guest has died.
    pub(super) async fn dead(&self) {
        let mut life = self.life.subscribe();
        // The sender lives as long as this borrow, so the wait ends with the death alone.
        let _ = life.wait_for(|life| *life == Life::Dead).await;
    }

    /// Ends the guest politely.
    pub(super) fn shut_down(&self) {
        self.is_over.send_replace(true);
        self.tell(FromServer::Shutdown);
    }

    /// The guest's process has ended.
    pub(super) fn has_ended(&self) {
        self.is_over.send_replace(true);
    }

    /// Says something that needs no answer.
    pub(super) fn tell(&self, frame: FromServer) {
        // Who is dead need not hear it.
        let _ = self.outbox.send(frame);
    }

    /// Asks for the outcome of a command: `ask` is an exec, or an attach.
    pub(super) async fn ask(&self, exec_id: &str, ask: FromServer) -> Result<Option<Outcome>, Error> {
        let (answer, outcome) = oneshot::channel();
        {
            let mut awaited = self.awaited();
            if self.is_dead() {
                return Err(Error::Died);
            }
            let of_it = awaited.entry(exec_id.to_owned()).or_insert_with(|| Awaited {
                ask: ask.clone(),
                stdout: Vec::new(),
                stderr: Vec::new(),
                answers: Vec::new(),
            });
            of_it.answers.push(answer);
            if of_it.answers.len() == 1 {
                self.tell(ask);
            }
        }
        outcome.await.unwrap_or(Err(Error::Died))
    }

    /// Ends the guest, and with it everything in the sandbox, without its help.
    pub(super) fn kill(&self) {
        if let Some(pid) = *self.pid.lock().unwrap_or_else(PoisonError::into_inner) {
            // One that has ended meanwhile is as dead as it was to be.
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    fn die(&self) {
        let answers: Vec<Answer> = {
            let mut awaited = self.awaited();
            self.life.send_replace(Life::Dead);
            awaited.drain().flat_map(|(_, of_it)| of_it.answers).collect()
        };
        for answer in answers {
            let _ = answer.send(Err(Error::Died));
        }
    }

    fn hear(&self, frame: FromGuest) {
        match frame {
            FromGuest::Output { exec_id, stream, offset, data } => {
                if let Some(of_it) = self.awaited().get_mut(&exec_id) {
                    let kept = if stream == Stream::Stdout { &mut of_it.stdout } else { &mut of_it.stderr };
                    // After a broken connection it is told again from the beginning.
                    if usize::try_from(offset).is_ok_and(|offset| offset == kept.len()) {
                        kept.extend_from_slice(&data.0);
                    }
                }
            }
            FromGuest::Exited { exec_id, exit, stdout, stderr, duration_ms } => {
                self.answer(&exec_id, |of_it| {
                    let dropped_bytes = stdout.dropped_bytes.saturating_add(stderr.dropped_bytes);
                    Ok(Some(Outcome {
                        exit,
                        stdout: whole(of_it.stdout, &stdout),
                        stderr: whole(of_it.stderr, &stderr),
                        dropped_bytes,
                        duration: Duration::from_millis(duration_ms),
                    }))
                });
            }
            FromGuest::Failed { exec_id, message } => {
                self.answer(&exec_id, |_| Err(Error::NotBegun(message)));
            }
            FromGuest::Unknown { exec_id } => self.answer(&exec_id, |_| Ok(None)),
            FromGuest::Hello { .. } => {}
        }
    }

    fn answer(&self, exec_id: &str, outcome: impl FnOnce(Awaited) -> Result<Option<Outcome>, Error>) {
        let Some(mut of_it) = self.awaited().remove(exec_id) else { return };
        let answers = std::mem::take(&mut of_it.answers);
        let outcome = outcome(of_it);
        for answer in answers {
            // Who asked may have gone.
            let _ = answer.send(outcome.clone());
        }
    }
}

fn whole(mut head: Vec<u8>, rest: &Rest) -> Vec<u8> {
    if rest.dropped_bytes > 0 {
        head.extend_from_slice(format!("\n[… {} bytes left out …]\n", rest.dropped_bytes).as_bytes());
    }
    head.extend_from_slice(&rest.tail.0);
    head
}

async fn serve(
    guest: Arc<Guest>,
    listener: UnixListener,
    token: String,
    mut outgoing: mpsc::UnboundedReceiver<FromServer>,
    first_limit: Duration,
) {
    let mut is_over = guest.is_over.subscribe();
    let mut limit = first_limit;
    loop {
        let mut stream = tokio::select! {
            accepted = timeout(limit, accept(&listener, &token)) => match accepted {
                Ok(Some(stream)) => stream,
                Ok(None) | Err(_) => break,
            },
            _ = is_over.wait_for(|is_over| *is_over) => break,
        };
        limit = REDIAL_LIMIT;
        let pid = stream.peer_cred().ok().and_then(|peer| peer.pid()).and_then(Pid::from_raw);
        *guest.pid.lock().unwrap_or_else(PoisonError::into_inner) = pid;
        guest.life.send_replace(Life::Connected);
        if let Err(error) = converse(&guest, &mut stream, &mut outgoing).await {
            tracing::debug!(%error, "a guest's connection ended");
        }
    }
    guest.die();
}

/// Waits for the guest itself: whoever does not know the token is sent away.
async fn accept(listener: &UnixListener, token: &str) -> Option<UnixStream> {
    loop {
        let (mut stream, _) = listener.accept().await.ok()?;
        let hello = timeout(HELLO_LIMIT, read_frame(&mut stream)).await;
        match hello {
            Ok(Ok(FromGuest::Hello { version: VERSION, token: said })) if said == token => {
                let welcome = encode(&FromServer::Welcome { version: VERSION }).ok()?;
                if stream.write_all(&welcome).await.is_ok() {
                    return Some(stream);
                }
            }
            other => {
                tracing::warn!(?other, "something in a sandbox that is not its guest dialled the server");
            }
        }
    }
}

async fn converse(
    guest: &Guest,
    stream: &mut UnixStream,
    outgoing: &mut mpsc::UnboundedReceiver<FromServer>,
) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    // What is awaited is asked for anew, and its output told from the beginning.
    let asks: Vec<FromServer> = {
        let mut awaited = guest.awaited();
        let unsent = std::iter::from_fn(|| outgoing.try_recv().ok());
        let unsent: Vec<FromServer> = unsent
            .filter(|frame| !matches!(frame, FromServer::Exec(_) | FromServer::Attach { .. }))
            .collect();
        let asks = awaited.values_mut().map(|of_it| {
            of_it.stdout.clear();
            of_it.stderr.clear();
            of_it.ask.clone()
        });
        asks.chain(unsent).collect()
    };
    let write = async {
        for ask in asks {
            writer.write_all(&encode(&ask)?).await?;
        }
        while let Some(frame) = outgoing.recv().await {
            writer.write_all(&encode(&frame)?).await?;
        }
        Ok(())
    };
    let read = async {
        loop {
            guest.hear(read_frame(&mut reader).await?);
        }
    };
    tokio::select! {
        result = write => result,
        result = read => result,
    }
}

async fn read_frame(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<FromGuest> {
    let mut prefix = [0u8; 4];
    reader.read_exact(&mut prefix).await?;
    let mut json = vec![0u8; decode_length(prefix)?];
    reader.read_exact(&mut json).await?;
    decode(&json)
}
