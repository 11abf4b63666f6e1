//! A simulated machine that runs sandboxes. It keeps running when a server is killed, and counts how often each command
//! was started.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use herm_guest::protocol::{
    self, Bytes, Exit, FromGuest, FromServer, MAX_FRAME_BYTES, OutputTail, SOCKET_FILE, TOKEN_FILE, VERSION,
};
use herm_sandbox::Machine;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

/// The interval between two attempts of a guest to connect to the server.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(2);

/// A simulated machine. Its guests (the programs that execute commands in the sandboxes) are tasks of the Tokio runtime
/// that created the machine, so they keep running when a server and the server's own runtime end.
#[derive(Clone)]
pub(crate) struct SimulatedMachine(Arc<MachineState>);

struct MachineState {
    runtime: Handle,
    sandboxes: Mutex<HashMap<String, SandboxHandle>>,
    command_starts: Mutex<BTreeMap<String, u64>>,
}

#[derive(Clone)]
struct SandboxHandle {
    has_ended: watch::Sender<bool>,
    disconnect: Arc<Notify>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimulatedMachine {
    pub(crate) fn new() -> Self {
        let (sandboxes, command_starts) = (Mutex::default(), Mutex::default());
        Self(Arc::new(MachineState { runtime: Handle::current(), sandboxes, command_starts }))
    }

    /// Returns the number of times that each command was started, by command.
    pub(crate) fn command_starts(&self) -> BTreeMap<String, u64> {
        lock(&self.0.command_starts).clone()
    }

    /// Returns one of the sandboxes, chosen by `number`. Returns `None` if there are no sandboxes.
    fn pick(&self, number: u64) -> Option<(String, SandboxHandle)> {
        let sandboxes = lock(&self.0.sandboxes);
        let mut names: Vec<&String> = sandboxes.keys().collect();
        names.sort();
        let count = u64::try_from(names.len()).unwrap_or(u64::MAX).max(1);
        let name = *names.get(usize::try_from(number % count).unwrap_or_default())?;
        Some((name.clone(), sandboxes.get(name)?.clone()))
    }

    /// Kills one of the sandboxes, chosen by `number`. The command results that its guest retains are lost.
    pub(crate) fn kill_any(&self, number: u64) {
        if let Some((name, _)) = self.pick(number) {
            self.kill(&name);
        }
    }

    /// Closes the server connection of one of the guests, chosen by `number`. The guest then connects again.
    pub(crate) fn disconnect_any(&self, number: u64) {
        if let Some((_, sandbox)) = self.pick(number) {
            sandbox.disconnect.notify_one();
        }
    }
}

#[async_trait::async_trait]
impl Machine for SimulatedMachine {
    fn start(&self, sandbox_id: &str, run_dir: PathBuf) {
        let sandbox = SandboxHandle { has_ended: watch::Sender::new(false), disconnect: Arc::default() };
        if let Some(previous) = lock(&self.0.sandboxes).insert(sandbox_id.to_owned(), sandbox.clone()) {
            previous.has_ended.send_replace(true);
        }
        let state = Arc::clone(&self.0);
        self.0.runtime.spawn(async move {
            let mut ended = sandbox.has_ended.subscribe();
            tokio::select! {
                _ = ended.wait_for(|has_ended| *has_ended) => {}
                _ = run_guest(&state, &run_dir, &sandbox.disconnect) => {
                    sandbox.has_ended.send_replace(true);
                }
            }
        });
    }

    fn kill(&self, sandbox_id: &str) {
        if let Some(sandbox) = lock(&self.0.sandboxes).remove(sandbox_id) {
            sandbox.has_ended.send_replace(true);
        }
    }

    async fn wait_ended(&self, sandbox_id: &str) {
        let sandbox = lock(&self.0.sandboxes).get(sandbox_id).cloned();
        if let Some(sandbox) = sandbox {
            // This cannot fail, because `sandbox` owns the sender.
            let _ = sandbox.has_ended.subscribe().wait_for(|has_ended| *has_ended).await;
        }
    }
}

/// Runs a guest until the server shuts it down. Reconnects whenever the connection to the server breaks.
async fn run_guest(state: &MachineState, run_dir: &Path, disconnect: &Notify) -> io::Result<()> {
    let token = tokio::fs::read_to_string(run_dir.join(TOKEN_FILE)).await?;
    // The command results that the server has not yet acknowledged, by the command's id.
    let mut retained: HashMap<String, FromGuest> = HashMap::new();
    loop {
        if let Ok(mut stream) = UnixStream::connect(run_dir.join(SOCKET_FILE)).await {
            let result = tokio::select! {
                result = serve_connection(state, &mut stream, &token, &mut retained) => result,
                () = disconnect.notified() => Err(io::ErrorKind::ConnectionAborted.into()),
            };
            if result.is_ok() {
                return Ok(());
            }
        }
        tokio::time::sleep(RECONNECT_INTERVAL).await;
    }
}

async fn read(stream: &mut UnixStream) -> io::Result<FromServer> {
    let mut prefix = [0u8; 4];
    stream.read_exact(&mut prefix).await?;
    let mut json = vec![0u8; protocol::decode_length(prefix)?.min(MAX_FRAME_BYTES)];
    stream.read_exact(&mut json).await?;
    protocol::decode(&json)
}

/// Serves the guest's connection to the server. Returns `Ok` if the server shuts the guest down, and an error if the
/// connection breaks.
async fn serve_connection(
    state: &MachineState,
    stream: &mut UnixStream,
    token: &str,
    retained: &mut HashMap<String, FromGuest>,
) -> io::Result<()> {
    let hello = FromGuest::Hello { version: VERSION, token: token.to_owned() };
    stream.write_all(&protocol::encode(&hello)?).await?;
    loop {
        let reply = match read(stream).await? {
            FromServer::Welcome { .. } | FromServer::Kill { .. } => continue,
            FromServer::Shutdown => return Ok(()),
            FromServer::Ack { exec_id } => {
                retained.remove(&exec_id);
                continue;
            }
            FromServer::Exec(exec) => {
                let result = retained.entry(exec.exec_id.clone()).or_insert_with(|| run(state, exec));
                result.clone()
            }
            FromServer::Attach { exec_id } => {
                retained.get(&exec_id).cloned().unwrap_or(FromGuest::Unknown { exec_id })
            }
        };
        stream.write_all(&protocol::encode(&reply)?).await?;
    }
}

/// Simulates a command: counts its start and returns a successful result.
fn run(state: &MachineState, exec: protocol::Exec) -> FromGuest {
    let command = exec.argv.last().cloned().unwrap_or_default();
    *lock(&state.command_starts).entry(command.clone()).or_default() += 1;
    FromGuest::Exited {
        exec_id: exec.exec_id,
        exit: Exit::Code(0),
        stdout: OutputTail { dropped_bytes: 0, tail: Bytes(command.into_bytes()) },
        stderr: OutputTail::default(),
        duration_ms: 1,
    }
}
