//! The server's connection to a guest, the program that is PID 1 in a sandbox. Commands and results survive a broken
//! connection: the guest reconnects, and the server sends its pending requests again.

use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use herm_guest::protocol::{
    FromGuest, FromServer, MAX_FRAME_BYTES, MAX_OUTPUT_BYTES, OutputTail, Stream, decode, decode_length,
    encode,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{Notify, OnceCell, mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::Instrument as _;

use crate::engine::EngineSandbox;
use crate::guest_listener::GuestListener;
use crate::spec::{Error, Outcome};

/// The maximum time for a guest to reconnect after its connection has broken. If it takes longer, the server considers
/// the guest dead. Guests try to reconnect every 100 ms, or less often on a busy machine.
const GUEST_RECONNECT_TIMEOUT: Duration = Duration::from_secs(30);

type ResultSender = oneshot::Sender<Result<Option<Outcome>, Error>>;

/// A command whose result was requested from the guest but has not arrived yet.
struct PendingCommand {
    /// The request that starts the command (exec) or asks for its result (attach). It is sent again on each new
    /// connection. This is safe because the guest does not start a command twice.
    request: FromServer,
    /// True if the server has asked the guest to kill this command. The kill request, too, is sent again on each new
    /// connection.
    is_killed: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    result_senders: Vec<ResultSender>,
}

/// The state of a guest from the server's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuestState {
    Starting,
    Connected,
    Dead,
}

/// The server's side of the connection to a guest. It is shared by the handles to the guest and the task that serves
/// the connection.
pub(crate) struct Guest {
    pending: Mutex<HashMap<String, PendingCommand>>,
    outbox: mpsc::UnboundedSender<FromServer>,
    state: watch::Sender<GuestState>,
    /// Set when the guest has been told to shut down, or when the sandbox is about to be killed. The server then stops
    /// waiting for the guest to connect.
    is_stopping: watch::Sender<bool>,
    /// Set when the last handle to the guest is dropped. The task that serves the connection then closes the
    /// connection.
    is_released: watch::Sender<bool>,
    /// The engine's handle to the sandbox. It is set once the engine has started the sandbox, which may be after the
    /// guest has connected.
    engine_sandbox: OnceCell<Box<dyn EngineSandbox>>,
    engine_sandbox_set: Notify,
}

/// A handle that keeps a guest's connection open. When the last clone is dropped, the connection is closed. The guest
/// then reconnects to the next server process that takes over the sandbox.
pub(crate) struct GuestHandle(Arc<Guest>);

impl Drop for GuestHandle {
    fn drop(&mut self) {
        self.0.is_released.send_replace(true);
    }
}

impl std::ops::Deref for GuestHandle {
    type Target = Arc<Guest>;

    fn deref(&self) -> &Arc<Guest> {
        &self.0
    }
}

impl Guest {
    /// Spawns a task that waits for the guest to connect and then serves its connections. The task ends when the guest
    /// is dead or when the last handle to it is dropped.
    pub(crate) fn listen(guest_listener: GuestListener, connect_timeout: Duration) -> Arc<GuestHandle> {
        let (outbox, outgoing) = mpsc::unbounded_channel();
        let guest = Arc::new(Self {
            pending: Mutex::default(),
            outbox,
            state: watch::Sender::new(GuestState::Starting),
            is_stopping: watch::Sender::new(false),
            is_released: watch::Sender::new(false),
            engine_sandbox: OnceCell::new(),
            engine_sandbox_set: Notify::new(),
        });
        // The task outlives the request or job that starts the sandbox, so it gets a span of its own.
        let span = tracing::error_span!(parent: None, "sandbox", sandbox_id = guest_listener.sandbox_id());
        tokio::spawn(serve(Arc::clone(&guest), guest_listener, outgoing, connect_timeout).instrument(span));
        Arc::new(GuestHandle(guest))
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<String, PendingCommand>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the engine's handle to the sandbox in which this guest runs.
    pub(crate) fn set_engine_sandbox(&self, engine_sandbox: Box<dyn EngineSandbox>) {
        // Cannot fail: this is called only once per guest.
        let _ = self.engine_sandbox.set(engine_sandbox);
        self.engine_sandbox_set.notify_waiters();
    }

    async fn engine_sandbox(&self) -> &dyn EngineSandbox {
        loop {
            let mut notified = pin!(self.engine_sandbox_set.notified());
            // Register for the notification before checking the value, so that a value that is set concurrently is not
            // missed.
            notified.as_mut().enable();
            if let Some(engine_sandbox) = self.engine_sandbox.get() {
                return engine_sandbox.as_ref();
            }
            notified.await;
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        *self.state.borrow() == GuestState::Dead
    }

    /// Waits until the guest has connected or is considered dead. Returns true if it has connected.
    pub(crate) async fn wait_connected(&self) -> bool {
        let mut state = self.state.subscribe();
        let state = state.wait_for(|state| *state != GuestState::Starting).await;
        state.is_ok_and(|state| *state == GuestState::Connected)
    }

    /// Waits until the guest is considered dead and all processes of the sandbox have exited.
    pub(crate) async fn wait_ended(&self) {
        let mut state = self.state.subscribe();
        // Cannot fail: `self` owns the sender, so the channel stays open.
        let _ = state.wait_for(|state| *state == GuestState::Dead).await;
        self.engine_sandbox().await.wait_ended().await;
    }

    /// Waits until all processes of the sandbox have exited. It does not matter whether the guest is connected.
    pub(crate) async fn wait_sandbox_ended(&self) {
        self.engine_sandbox().await.wait_ended().await;
    }

    /// Returns `false` only if all processes of the sandbox are known to have exited.
    pub(crate) async fn may_run(&self) -> bool {
        self.engine_sandbox().await.may_run().await
    }

    /// Returns the reason why the sandbox ended before its guest connected. If the sandbox is still running, returns a
    /// timeout error.
    pub(crate) async fn start_failure(&self) -> Error {
        self.engine_sandbox().await.start_failure().await
    }

    /// Removes the sandbox's resources from the host. Called after the sandbox has ended.
    pub(crate) async fn clean_up(&self) {
        self.engine_sandbox().await.clean_up().await;
    }

    /// Asks the guest to shut down, without waiting.
    pub(crate) fn shut_down(&self) {
        self.is_stopping.send_replace(true);
        self.send(FromServer::Shutdown);
    }

    /// Makes the server stop waiting for the guest to connect. Called before the sandbox is killed.
    pub(crate) fn stop_waiting(&self) {
        self.is_stopping.send_replace(true);
    }

    /// Queues a frame for the guest and returns without waiting for a response.
    pub(crate) fn send(&self, frame: FromServer) {
        // This fails only if the guest is dead. The frame is then not needed.
        let _ = self.outbox.send(frame);
    }

    /// Kills a command and its process group. If the connection breaks, the kill request is sent again on the next
    /// connection.
    pub(crate) fn kill_command(&self, exec_id: &str) {
        let mut pending = self.pending();
        if let Some(command) = pending.get_mut(exec_id) {
            command.is_killed = true;
        }
        self.send(FromServer::Kill { exec_id: exec_id.to_owned() });
    }

    /// Sends `request`, which starts the command (exec) or asks for its result (attach), and waits for the command's
    /// outcome. If a request for the same command is already pending, sends nothing and waits for the same outcome.
    /// Returns `None` if the guest does not know the command.
    pub(crate) async fn request(&self, exec_id: &str, request: FromServer) -> Result<Option<Outcome>, Error> {
        let (sender, outcome) = oneshot::channel();
        {
            let mut pending = self.pending();
            if self.is_dead() {
                return Err(Error::Died);
            }
            let command = pending.entry(exec_id.to_owned()).or_insert_with(|| PendingCommand {
                request: request.clone(),
                is_killed: false,
                stdout: Vec::new(),
                stderr: Vec::new(),
                result_senders: Vec::new(),
            });
            command.result_senders.push(sender);
            if command.result_senders.len() == 1 {
                self.send(request);
            }
        }
        outcome.await.unwrap_or(Err(Error::Died))
    }

    /// Kills all processes of the sandbox from the host, without involving the guest.
    pub(crate) async fn kill(&self) {
        self.engine_sandbox().await.kill().await;
    }

    /// Records that the guest has connected, and passes the connection's socket to the engine.
    async fn set_connected(&self, stream: &UnixStream) {
        self.engine_sandbox().await.guest_connected(stream);
        self.state.send_replace(GuestState::Connected);
    }

    fn mark_dead(&self) {
        let result_senders: Vec<ResultSender> = {
            let mut pending = self.pending();
            self.state.send_replace(GuestState::Dead);
            pending.drain().flat_map(|(_, command)| command.result_senders).collect()
        };
        for sender in result_senders {
            let _ = sender.send(Err(Error::Died));
        }
    }

    fn handle_frame(&self, frame: FromGuest) {
        match frame {
            FromGuest::Output { exec_id, stream, offset, data } => {
                if let Some(command) = self.pending().get_mut(&exec_id) {
                    let received =
                        if stream == Stream::Stdout { &mut command.stdout } else { &mut command.stderr };
                    // Append the chunk only if it directly follows the bytes received so far. Any other chunk is a
                    // repetition: after a reconnect, the guest sends the output again from the beginning.
                    let is_next = usize::try_from(offset).is_ok_and(|offset| offset == received.len());
                    if is_next && received.len().saturating_add(data.0.len()) <= MAX_OUTPUT_BYTES {
                        received.extend_from_slice(&data.0);
                    }
                }
            }
            FromGuest::Exited { exec_id, exit, stdout, stderr, duration_ms } => {
                self.complete(&exec_id, |command| {
                    let dropped_bytes = stdout.dropped_bytes.saturating_add(stderr.dropped_bytes);
                    Ok(Some(Outcome {
                        exit,
                        stdout: join_output(command.stdout, &stdout),
                        stderr: join_output(command.stderr, &stderr),
                        dropped_bytes,
                        duration: Duration::from_millis(duration_ms),
                    }))
                });
            }
            FromGuest::Failed { exec_id, message } => {
                self.complete(&exec_id, |_| Err(Error::CommandNotStarted(message)));
            }
            FromGuest::Unknown { exec_id } => self.complete(&exec_id, |_| Ok(None)),
            FromGuest::Hello { .. } | FromGuest::Carry { .. } => {}
        }
    }

    fn complete(
        &self,
        exec_id: &str,
        outcome: impl FnOnce(PendingCommand) -> Result<Option<Outcome>, Error>,
    ) {
        let Some(mut command) = self.pending().remove(exec_id) else { return };
        let result_senders = std::mem::take(&mut command.result_senders);
        let outcome = outcome(command);
        for sender in result_senders {
            // This fails only if the caller no longer waits for the outcome.
            let _ = sender.send(outcome.clone());
        }
    }
}

fn join_output(mut head: Vec<u8>, tail: &OutputTail) -> Vec<u8> {
    if tail.dropped_bytes > 0 {
        head.extend_from_slice(format!("\n[… {} bytes omitted …]\n", tail.dropped_bytes).as_bytes());
    }
    head.extend_from_slice(&tail.tail.0);
    head
}

async fn serve(
    guest: Arc<Guest>,
    mut guest_listener: GuestListener,
    mut outgoing: mpsc::UnboundedReceiver<FromServer>,
    connect_timeout: Duration,
) {
    let (mut is_stopping, mut is_released) = (guest.is_stopping.subscribe(), guest.is_released.subscribe());
    let connections = async {
        let mut next = tokio::select! {
            stream = timeout(connect_timeout, guest_listener.next()) => stream.ok(),
            _ = is_stopping.wait_for(|is_stopping| *is_stopping) => None,
        };
        while let Some(mut stream) = next {
            guest.set_connected(&stream).await;
            next = tokio::select! {
                // Replace the current connection with the new one: the guest reconnects only if its old connection is
                // broken, even if the server has not noticed that yet.
                stream = guest_listener.next() => Some(stream),
                ended = run_connection(&guest, &mut stream, &mut outgoing) => {
                    tracing::debug!(reason = ?ended, "the connection to a sandbox's guest ended; waiting for the guest to reconnect");
                    tokio::select! {
                        stream = timeout(GUEST_RECONNECT_TIMEOUT, guest_listener.next()) => stream.ok(),
                        _ = is_stopping.wait_for(|is_stopping| *is_stopping) => None,
                        () = async { guest.engine_sandbox().await.wait_ended().await } => None,
                    }
                }
            };
        }
    };
    tokio::select! {
        () = connections => {}
        _ = is_released.wait_for(|is_released| *is_released) => {}
    }
    guest.mark_dead();
}

async fn run_connection(
    guest: &Guest,
    stream: &mut UnixStream,
    outgoing: &mut mpsc::UnboundedReceiver<FromServer>,
) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    // Send the requests of all pending commands again. In response, the guest sends each command's output from the
    // beginning, so discard the output received so far.
    let requests: Vec<FromServer> = {
        let mut pending = guest.pending();
        let unsent = std::iter::from_fn(|| outgoing.try_recv().ok());
        let unsent: Vec<FromServer> = unsent
            .filter(|frame| !matches!(frame, FromServer::Exec(_) | FromServer::Attach { .. }))
            .collect();
        let requests = pending.iter_mut().flat_map(|(exec_id, command)| {
            command.stdout.clear();
            command.stderr.clear();
            let kill = command.is_killed.then(|| FromServer::Kill { exec_id: exec_id.clone() });
            [command.request.clone()].into_iter().chain(kill)
        });
        requests.chain(unsent).collect()
    };
    let write = async {
        for request in requests {
            writer.write_all(&encode(&request)?).await?;
        }
        while let Some(frame) = outgoing.recv().await {
            writer.write_all(&encode(&frame)?).await?;
        }
        Ok(())
    };
    let read = async {
        loop {
            guest.handle_frame(read_frame(&mut reader, MAX_FRAME_BYTES).await?);
        }
    };
    tokio::select! {
        result = write => result,
        result = read => result,
    }
}

/// Reads a frame whose JSON has at most `limit` bytes. Larger frames are rejected.
pub(crate) async fn read_frame(reader: &mut (impl AsyncRead + Unpin), limit: usize) -> io::Result<FromGuest> {
    let mut prefix = [0u8; 4];
    reader.read_exact(&mut prefix).await?;
    let length = decode_length(prefix)?;
    if length > limit {
        let message = format!("a frame from the guest has {length} bytes, more than the limit of {limit}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut json = vec![0u8; length];
    reader.read_exact(&mut json).await?;
    decode(&json)
}
