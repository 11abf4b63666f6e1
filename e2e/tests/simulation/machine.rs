//! The machine that sandboxes live on: it survives the server, and counts what commands really did.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use herm_guest::protocol::{
    self, Bytes, Exit, FromGuest, FromServer, MAX_FRAME_BYTES, Rest, SOCKET_FILE, TOKEN_FILE, VERSION,
};
use herm_sandbox::Machine;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

/// Between two attempts of a guest to find its server, as the real one makes them.
const DIAL_EVERY: Duration = Duration::from_millis(2);

/// A machine; its guests are tasks of the runtime that made it, not of a server's.
#[derive(Clone)]
pub(crate) struct Sandboxes(Arc<Shared>);

struct Shared {
    runtime: Handle,
    living: Mutex<HashMap<String, Living>>,
    begun: Mutex<BTreeMap<String, u64>>,
}

#[derive(Clone)]
struct Living {
    is_dead: watch::Sender<bool>,
    cut: Arc<Notify>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sandboxes {
    pub(crate) fn new() -> Self {
        let (living, begun) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { runtime: Handle::current(), living, begun }))
    }

    /// How often each command was begun.
    pub(crate) fn begun(&self) -> BTreeMap<String, u64> {
        lock(&self.0.begun).clone()
    }

    fn any(&self, number: u64) -> Option<(String, Living)> {
        let living = lock(&self.0.living);
        let mut names: Vec<&String> = living.keys().collect();
        names.sort();
        let count = u64::try_from(names.len()).unwrap_or(u64::MAX).max(1);
        let name = *names.get(usize::try_from(number % count).unwrap_or_default())?;
        Some((name.clone(), living.get(name)?.clone()))
    }

    /// Ends one of the sandboxes with all that it knows.
    pub(crate) fn kill_any(&self, number: u64) {
        if let Some((name, _)) = self.any(number) {
            self.kill(&name);
        }
    }

    /// Cuts the connection of one of the guests, which dials again.
    pub(crate) fn cut_any(&self, number: u64) {
        if let Some((_, living)) = self.any(number) {
            living.cut.notify_one();
        }
    }
}

#[async_trait::async_trait]
impl Machine for Sandboxes {
    fn start(&self, sandbox_id: &str, run_dir: PathBuf) {
        let living = Living { is_dead: watch::Sender::new(false), cut: Arc::default() };
        if let Some(before) = lock(&self.0.living).insert(sandbox_id.to_owned(), living.clone()) {
            before.is_dead.send_replace(true);
        }
        let shared = Arc::clone(&self.0);
        self.0.runtime.spawn(async move {
            let mut dead = living.is_dead.subscribe();
            tokio::select! {
                _ = dead.wait_for(|is_dead| *is_dead) => {}
                _ = guest(&shared, &run_dir, &living.cut) => {
                    living.is_dead.send_replace(true);
                }
            }
        });
    }

    fn kill(&self, sandbox_id: &str) {
        if let Some(living) = lock(&self.0.living).remove(sandbox_id) {
            living.is_dead.send_replace(true);
        }
    }

    async fn ended(&self, sandbox_id: &str) {
        let living = lock(&self.0.living).get(sandbox_id).cloned();
        if let Some(living) = living {
            // The sender is held here, so the wait ends with the death alone.
            let _ = living.is_dead.subscribe().wait_for(|is_dead| *is_dead).await;
        }
    }
}

/// A guest from its start until it is told to end.
async fn guest(shared: &Shared, run_dir: &Path, cut: &Notify) -> io::Result<()> {
    let token = tokio::fs::read_to_string(run_dir.join(TOKEN_FILE)).await?;
    // What it keeps until it is acknowledged.
    let mut kept: HashMap<String, FromGuest> = HashMap::new();
    loop {
        if let Ok(mut stream) = UnixStream::connect(run_dir.join(SOCKET_FILE)).await {
            let talked = tokio::select! {
                talked = talk(shared, &mut stream, &token, &mut kept) => talked,
                () = cut.notified() => Err(io::ErrorKind::ConnectionAborted.into()),
            };
            if talked.is_ok() {
                return Ok(());
            }
        }
        tokio::time::sleep(DIAL_EVERY).await;
    }
}

async fn read(stream: &mut UnixStream) -> io::Result<FromServer> {
    let mut prefix = [0u8; 4];
    stream.read_exact(&mut prefix).await?;
    let mut json = vec![0u8; protocol::decode_length(prefix)?.min(MAX_FRAME_BYTES)];
    stream.read_exact(&mut json).await?;
    protocol::decode(&json)
}

/// One connection; `Ok` if the guest was told to end.
async fn talk(
    shared: &Shared,
    stream: &mut UnixStream,
    token: &str,
    kept: &mut HashMap<String, FromGuest>,
) -> io::Result<()> {
    let hello = FromGuest::Hello { version: VERSION, token: token.to_owned() };
    stream.write_all(&protocol::encode(&hello)?).await?;
    loop {
        let answer = match read(stream).await? {
            FromServer::Welcome { .. } | FromServer::Kill { .. } => continue,
            FromServer::Shutdown => return Ok(()),
            FromServer::Ack { exec_id } => {
                kept.remove(&exec_id);
                continue;
            }
            FromServer::Exec(exec) => {
                let known = kept.entry(exec.exec_id.clone()).or_insert_with(|| run(shared, exec));
                known.clone()
            }
            FromServer::Attach { exec_id } => {
                kept.get(&exec_id).cloned().unwrap_or(FromGuest::Unknown { exec_id })
            }
        };
        stream.write_all(&protocol::encode(&answer)?).await?;
    }
}

/// The effect: it happens once for each call of this.
fn run(shared: &Shared, exec: protocol::Exec) -> FromGuest {
    let command = exec.argv.last().cloned().unwrap_or_default();
    *lock(&shared.begun).entry(command.clone()).or_default() += 1;
    FromGuest::Exited {
        exec_id: exec.exec_id,
        exit: Exit::Code(0),
        stdout: Rest { dropped_bytes: 0, tail: Bytes(command.into_bytes()) },
        stderr: Rest::default(),
        duration_ms: 1,
    }
}
