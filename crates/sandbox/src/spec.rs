//! Data types for callers of this crate: sandbox specifications, commands, outcomes and errors.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use herm_guest::protocol::Exit;
use herm_types::sandbox::SandboxType;

use crate::engine::START_TIMEOUT;
use crate::sandboxes::KILL_TIMEOUT;

/// The specification from which a sandbox is started.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The id of the sandbox. It may contain only ASCII letters, digits, `_` and `-`.
    pub sandbox_id: String,
    pub engine: SandboxType,
    /// The image of a Docker or gVisor sandbox. `None` means the default image from the server's configuration.
    pub image: Option<String>,
    /// The host directory that is mounted as `/workspace`. It is created if it does not exist.
    pub workspace_dir: PathBuf,
    /// Environment variables for every command in the sandbox, in addition to `PATH`, `HOME`, `USER`, `LANG` and
    /// `TERM`.
    pub env: Vec<(String, String)>,
    pub limits: Limits,
}

/// The resource limits of a sandbox. Each limit applies to the total of all processes in the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The maximum CPU usage, in thousandths of a core.
    pub cpu_millis: u32,
    pub memory_bytes: u64,
    /// The maximum number of processes and threads. Those of the guest are included: it uses up to four threads per
    /// running command.
    pub processes: u32,
}

impl Default for Limits {
    /// Returns the limits of a deployment that does not set any: 2 cores, 2 GiB of memory, 1,024 processes.
    fn default() -> Self {
        Self { cpu_millis: 2_000, memory_bytes: 2 * 1024 * 1024 * 1024, processes: 1_024 }
    }
}

/// A command to run in a sandbox.
#[derive(Clone, Debug)]
pub struct Exec {
    /// The permanent id of the command. If a command with this id was already started, it is not started again, and the
    /// caller gets the outcome of that command.
    pub exec_id: String,
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: String,
    /// The command's standard input, at most [`herm_guest::protocol::MAX_STDIN_BYTES`] bytes.
    pub stdin: Vec<u8>,
    /// The time after which the command's whole process group is killed if the command has not ended.
    pub timeout: Duration,
    /// The maximum number of output bytes to retain, up to 1 MiB. Standard output and standard error get half each. Of
    /// each stream, the beginning and the end are retained.
    pub output_limit_bytes: usize,
}

/// The result of a command: the reason why it ended, such as its exit code, and its output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub exit: Exit,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// The number of output bytes that were dropped, in standard output and standard error together. Bytes are dropped
    /// from the middle of a stream, and a line of text is inserted there to mark the gap.
    pub dropped_bytes: u64,
    pub duration: Duration,
}

/// The reason why a sandbox could not be started or stopped, or why a command has no outcome.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("bubblewrap is not installed; install the package `bubblewrap`")]
    NotInstalled,
    #[error("bubblewrap cannot start a sandbox ({0}); allow the server's user to create user namespaces")]
    NotAllowed(String),
    #[error(
        "failed to connect to the Docker engine at {host} ({reason}); start the engine, or set \
         HERM_DOCKER_HOST to its Unix socket"
    )]
    NoDocker { host: String, reason: String },
    #[error("the Docker engine has no runtime `{0}`; add the runtime to the engine's configuration")]
    NoRuntime(&'static str),
    #[error("the Docker engine does not have the image {image:?}: {reason}")]
    NoImage { image: String, reason: String },
    /// The Docker engine returned an error. The string is its message.
    #[error("the Docker engine returned an error: {0}")]
    Docker(String),
    #[error("the sandbox did not start: {0}")]
    NotStarted(String),
    #[error("the sandbox did not start within {} s", START_TIMEOUT.as_secs())]
    StartTimeout,
    #[error("failed to prepare the sandbox: {0}")]
    Prepare(Arc<std::io::Error>),
    #[error("failed to start the command: {0}")]
    CommandNotStarted(String),
    #[error("the sandbox did not end within {} s after it was killed", KILL_TIMEOUT.as_secs())]
    KillTimeout,
    /// The sandbox ended before the command's outcome was known. The command may or may not have been executed.
    #[error("the sandbox ended before the outcome of the command was known")]
    Died,
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Prepare(Arc::new(error))
    }
}
