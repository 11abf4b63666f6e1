//! Sandboxes on this machine: bubblewrap, with the guest as PID 1.
//!
//! A sandbox has no network, sees of the host only the system's programs, read-only, and can write its workspace
//! and `/tmp`. It shares the host's kernel, and runs as the server's own user: see `docs/concepts/sandboxes.md`.
//!
//! A sandbox outlives a server that was killed. Its guest dials the same socket again, so that the next server
//! finds it, and the results it keeps ([`Sandboxes::find`], [`LocalSandbox::attach`]); if none comes within 30
//! seconds it ends itself.

mod bubblewrap;
mod connection;
mod door;
mod place;
mod sandbox;
mod sandboxes;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use herm_types::Rng;

pub use herm_guest::protocol::Exit;
pub use sandbox::LocalSandbox;
pub use sandboxes::Sandboxes;

/// How sandboxes are kept.
#[derive(Clone)]
pub struct Options {
    /// Sockets and tokens lie in `sandboxes/` below it.
    pub data_dir: PathBuf,
    pub rng: Arc<dyn Rng>,
    /// How long a sandbox waits for its server before it ends itself.
    pub away_limit: Duration,
}

/// What a sandbox waits for its server unless a test says otherwise.
pub const AWAY_LIMIT: Duration = Duration::from_secs(30);

/// A sandbox that is wanted.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Letters, digits, `_` and `-` only.
    pub sandbox_id: String,
    /// Becomes `/workspace`; made if it is missing.
    pub workspace_dir: PathBuf,
    /// The environment of every command, beside `PATH`, `HOME`, `LANG` and `TERM`.
    pub env: Vec<(String, String)>,
}

/// A command that is to run.
#[derive(Clone, Debug)]
pub struct Exec {
    /// Names the command for good: one that was begun under this name is attached to, never begun again.
    pub exec_id: String,
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: String,
    /// At most [`herm_guest::protocol::MAX_STDIN_BYTES`].
    pub stdin: Vec<u8>,
    /// After it the whole process group is ended.
    pub timeout: Duration,
    /// Bytes of output that are kept, up to 1 MiB: half of them for each stream, of it the beginning and the end.
    pub output_limit_bytes: usize,
}

/// How a command ended, and what it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub exit: Exit,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// Bytes in the middle of the output that were not kept; a line in it says where.
    pub dropped_bytes: u64,
    pub duration: Duration,
}

/// Why a command has no outcome.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("bubblewrap is not installed: install the package `bubblewrap`")]
    NotInstalled,
    #[error("bubblewrap cannot start a sandbox here ({0}): allow user namespaces to the server's user")]
    NotAllowed(String),
    #[error("the sandbox did not start within {} s", bubblewrap::START_LIMIT.as_secs())]
    Slow,
    #[error("the sandbox could not be prepared: {0}")]
    Prepare(Arc<std::io::Error>),
    #[error("the command could not be begun: {0}")]
    NotBegun(String),
    #[error("the sandbox did not end within {} s of being killed", sandboxes::KILL_LIMIT.as_secs())]
    Undead,
    /// The sandbox ended while the command may have run.
    #[error("the sandbox ended")]
    Died,
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Prepare(Arc::new(error))
    }
}
