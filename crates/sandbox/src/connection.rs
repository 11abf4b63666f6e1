//! The connection to one guest: commands go out, results come in, across broken connections.

use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use herm_guest::protocol::{
    FromGuest, FromServer, MAX_FRAME_BYTES, MAX_OUTPUT_BYTES, Rest, Stream, decode, decode_length, encode,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{Notify, OnceCell, mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::door::Door;
use crate::engine::Body;
use crate::spec::{Error, Outcome};

/// How long a guest whose sandbox runs may stay away before it counts as dead. It dials every 100 ms, when it is given
/// the processor.
const REDIAL_LIMIT: Duration = Duration::from_secs(30);

type Answer = oneshot::Sender<Result<Option<Outcome>, Error>>;

/// A command whose result is awaited.
struct Awaited {
    /// What is said about it on each new connection; the guest begins no command twice.
    ask: FromServer,
    /// Said again, too.
    is_killed: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    answers: Vec<Answer>,
}

/// Where a guest stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Starting,
    Connected,
    Dead,
}

/// What both sides of the connection's task share.
pub(crate) struct Guest {
    awaited: Mutex<HashMap<String, Awaited>>,
    outbox: mpsc::UnboundedSender<FromServer>,
    life: watch::Sender<Life>,
    /// Set once the guest is told to end, or has ended: no other connection is awaited.
    is_over: watch::Sender<bool>,
    /// Set once nobody holds the sandbox any more.
    is_left: watch::Sender<bool>,
    /// The sandbox from outside. It is there as soon as it is started, which may be after the guest has dialled.
    body: OnceCell<Box<dyn Body>>,
    has_body: Notify,
}

/// Holds a guest's connection: with the last of its clones the connection ends, and the guest dials again, for
/// whoever takes the sandbox over.
pub(crate) struct Held(Arc<Guest>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.is_left.send_replace(true);
    }
}

impl std::ops::Deref for Held {
    type Target = Arc<Guest>;

    fn deref(&self) -> &Arc<Guest> {
        &self.0
    }
}

impl Guest {
    /// Listens for the guest, on a task of its own that ends with the guest.
    pub(crate) fn listen(door: Door, first_limit: Duration) -> Arc<Held> {
        let (outbox, outgoing) = mpsc::unbounded_channel();
        let guest = Arc::new(Self {
            awaited: Mutex::default(),
            outbox,
            life: watch::Sender::new(Life::Starting),
            is_over: watch::Sender::new(false),
            is_left: watch::Sender::new(false),
            body: OnceCell::new(),
            has_body: Notify::new(),
        });
        tokio::spawn(serve(Arc::clone(&guest), door, outgoing, first_limit));
        Arc::new(Held(guest))
    }

    fn awaited(&self) -> MutexGuard<'_, HashMap<String, Awaited>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sandbox that this guest lives in.
    pub(crate) fn lives_in(&self, body: Box<dyn Body>) {
        // It is said once.
        let _ = self.body.set(body);
        self.has_body.notify_waiters();
    }

    async fn body(&self) -> &dyn Body {
        loop {
            let mut said = pin!(self.has_body.notified());
            // From here on it is not missed.
            said.as_mut().enable();
            if let Some(body) = self.body.get() {
                return body.as_ref();
            }
            said.await;
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        *self.life.borrow() == Life::Dead
    }

    /// Waits until the guest is there; `false` if it has died.
    pub(crate) async fn connected(&self) -> bool {
        let mut life = self.life.subscribe();
        let life = life.wait_for(|life| *life != Life::Starting).await;
        life.is_ok_and(|life| *life == Life::Connected)
    }

    /// Waits until nothing of the sandbox runs any more.
    pub(crate) async fn ended(&self) {
        let mut life = self.life.subscribe();
        // The sender lives as long as this borrow, so the wait ends with the death alone.
        let _ = life.wait_for(|life| *life == Life::Dead).await;
        self.body().await.ended().await;
    }

    /// Waits until nothing of the sandbox runs any more, whatever is known of its guest.
    pub(crate) async fn body_ended(&self) {
        self.body().await.ended().await;
    }

    /// Whether something of the sandbox may run still.
    pub(crate) async fn may_run(&self) -> bool {
        self.body().await.may_run().await
    }

    /// Why the sandbox ended before its guest dialled; that it is slow if it has not ended.
    pub(crate) async fn reason(&self) -> Error {
        self.body().await.reason().await
    }

    /// Removes what the sandbox leaves on the host, once it has ended.
    pub(crate) async fn clear(&self) {
        self.body().await.clear().await;
    }

    /// Ends the guest politely.
    pub(crate) fn shut_down(&self) {
        self.is_over.send_replace(true);
        self.tell(FromServer::Shutdown);
    }

    /// The guest is not to be awaited any more: its process has ended, or was never begun.
    pub(crate) fn has_ended(&self) {
        self.is_over.send_replace(true);
    }

    /// Says something that needs no answer.
    pub(crate) fn tell(&self, frame: FromServer) {
        // Who is dead need not hear it.
        let _ = self.outbox.send(frame);
    }

    /// Ends a command; said again should the connection break.
    pub(crate) fn kill_command(&self, exec_id: &str) {
        let mut awaited = self.awaited();
        if let Some(of_it) = awaited.get_mut(exec_id) {
            of_it.is_killed = true;
        }
        self.tell(FromServer::Kill { exec_id: exec_id.to_owned() });
    }

    /// Asks for the outcome of a command: `ask` is an exec, or an attach.
    pub(crate) async fn ask(&self, exec_id: &str, ask: FromServer) -> Result<Option<Outcome>, Error> {
        let (answer, outcome) = oneshot::channel();
        {
            let mut awaited = self.awaited();
            if self.is_dead() {
                return Err(Error::Died);
            }
            let of_it = awaited.entry(exec_id.to_owned()).or_insert_with(|| Awaited {
                ask: ask.clone(),
                is_killed: false,
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

    /// Ends everything in the sandbox, without the guest's help.
    pub(crate) async fn kill(&self) {
        self.body().await.kill().await;
    }

    /// The guest is there.
    async fn meet(&self, stream: &UnixStream) {
        self.body().await.met(stream);
        self.life.send_replace(Life::Connected);
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
                    let is_next = usize::try_from(offset).is_ok_and(|offset| offset == kept.len());
                    if is_next && kept.len().saturating_add(data.0.len()) <= MAX_OUTPUT_BYTES {
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
            FromGuest::Hello { .. } | FromGuest::Carry { .. } => {}
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
    mut door: Door,
    mut outgoing: mpsc::UnboundedReceiver<FromServer>,
    first_limit: Duration,
) {
    let (mut is_over, mut is_left) = (guest.is_over.subscribe(), guest.is_left.subscribe());
    let conversations = async {
        let mut next = tokio::select! {
            stream = timeout(first_limit, door.next()) => stream.ok(),
            _ = is_over.wait_for(|is_over| *is_over) => None,
        };
        while let Some(mut stream) = next {
            guest.meet(&stream).await;
            next = tokio::select! {
                // It dials again only if its connection is broken, whatever this side knows of it.
                stream = door.next() => Some(stream),
                ended = converse(&guest, &mut stream, &mut outgoing) => {
                    tracing::debug!(?ended, "a guest's connection ended");
                    tokio::select! {
                        stream = timeout(REDIAL_LIMIT, door.next()) => stream.ok(),
                        _ = is_over.wait_for(|is_over| *is_over) => None,
                        () = async { guest.body().await.ended().await } => None,
                    }
                }
            };
        }
    };
    tokio::select! {
        () = conversations => {}
        _ = is_left.wait_for(|is_left| *is_left) => {}
    }
    guest.die();
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
        let asks = awaited.iter_mut().flat_map(|(exec_id, of_it)| {
            of_it.stdout.clear();
            of_it.stderr.clear();
            let kill = of_it.is_killed.then(|| FromServer::Kill { exec_id: exec_id.clone() });
            [of_it.ask.clone()].into_iter().chain(kill)
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
            guest.hear(read_frame(&mut reader, MAX_FRAME_BYTES).await?);
        }
    };
    tokio::select! {
        result = write => result,
        result = read => result,
    }
}

/// Reads a frame of at most `limit` bytes.
pub(crate) async fn read_frame(reader: &mut (impl AsyncRead + Unpin), limit: usize) -> io::Result<FromGuest> {
    let mut prefix = [0u8; 4];
    reader.read_exact(&mut prefix).await?;
    let length = decode_length(prefix)?;
    if length > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the frame is too large"));
    }
    let mut json = vec![0u8; length];
    reader.read_exact(&mut json).await?;
    decode(&json)
}
