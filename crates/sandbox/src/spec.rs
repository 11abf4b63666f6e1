//! What is asked of a sandbox, and what it gives.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use herm_guest::protocol::Exit;
use herm_types::sandbox::SandboxType;

use crate::engine::START_LIMIT;
use crate::sandboxes::KILL_LIMIT;

/// A sandbox that is wanted.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Letters, digits, `_` and `-` only.
    pub sandbox_id: String,
    pub engine: SandboxType,
    /// With Docker and gVisor; none is the one that the server is configured with.
    pub image: Option<String>,
    /// Becomes `/workspace`; made if it is missing.
    pub workspace_dir: PathBuf,
    /// The environment of every command, beside `PATH`, `HOME`, `USER`, `LANG` and `TERM`.
    pub env: Vec<(String, String)>,
    pub limits: Limits,
}

/// What a sandbox may use, all its processes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Thousandths of a core.
    pub cpu_millis: u32,
    pub memory_bytes: u64,
    /// Processes and threads; the guest's own are among them, four for each command that runs.
    pub processes: u32,
}

impl Default for Limits {
    /// Of a sandbox whose deployment says nothing: 2 cores, 2 GiB, 1,024 processes.
    fn default() -> Self {
        Self { cpu_millis: 2_000, memory_bytes: 2 * 1024 * 1024 * 1024, processes: 1_024 }
    }
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
    #[error("no Docker engine answers at {host} ({reason}): start it, or set HERM_DOCKER_HOST to its socket")]
    NoDocker { host: String, reason: String },
    #[error("the Docker engine has no runtime `{0}`: add it to the engine's configuration")]
    NoRuntime(&'static str),
    #[error("the Docker engine has no image {image:?}: {reason}")]
    NoImage { image: String, reason: String },
    /// The engine's own words.
    #[error("the Docker engine refused: {0}")]
    Docker(String),
    #[error("the sandbox did not start: {0}")]
    NotStarted(String),
    #[error("the sandbox did not start within {} s", START_LIMIT.as_secs())]
    Slow,
    #[error("the sandbox could not be prepared: {0}")]
    Prepare(Arc<std::io::Error>),
    #[error("the command could not be begun: {0}")]
    NotBegun(String),
    #[error("the sandbox did not end within {} s of being killed", KILL_LIMIT.as_secs())]
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
