//! The interface that every sandbox engine (`local`, `docker`, `gvisor`) implements, and constants that the engines
//! share. All engines run the same guest program.

use std::time::Duration;

use async_trait::async_trait;
use tokio::net::UnixStream;

use crate::sandbox_dir::SandboxDir;
use crate::spec::{Error, Spec};

/// The maximum time from the start of a sandbox until its guest connects. If the guest takes longer, the start fails.
/// The limit is long because processes start slowly on a busy machine.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(120);
/// The user id that commands see inside a sandbox, unless the engine chooses another.
pub(crate) const USER_ID: u32 = 1000;
/// The default value of the environment variable `PATH` for commands in a sandbox.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// The maximum sizes of `/tmp` (`TMP_BYTES`) and `/dev/shm` (`SHM_BYTES`) in a sandbox, in bytes. Both directories are
/// kept in memory.
pub(crate) const TMP_BYTES: u64 = 512 * 1024 * 1024;
pub(crate) const SHM_BYTES: u64 = 64 * 1024 * 1024;
/// The path, inside the sandbox, of the directory that contains the server's socket.
pub(crate) const SOCKET_DIR: &str = "/run/herm/socket";
/// The path of the guest program inside the sandbox.
pub(crate) const GUEST_PATH: &str = "/run/herm/guest";

/// Environment variables that every command has by default.
pub(crate) const DEFAULT_ENV: [(&str, &str); 4] =
    [("HOME", "/workspace"), ("USER", "agent"), ("LANG", "C.UTF-8"), ("TERM", "dumb")];

/// Files in `/proc` that are hidden from sandboxes because they reveal information about the whole machine. This
/// includes files that only root may read: if the server runs as root, the kernel may treat a sandbox's user as root.
pub(crate) const MASKED_PATHS: [&str; 16] = [
    "/proc/config.gz",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/pagetypeinfo",
    "/proc/sched_debug",
    "/proc/slabinfo",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/vmallocinfo",
];

/// Starts sandboxes of one type, and finds sandboxes that a previous server process left running.
#[async_trait]
pub(crate) trait Engine: Send + Sync {
    /// Checks that the engine can start sandboxes on this machine. The image is not checked.
    async fn check(&self) -> Result<(), Error>;

    /// Returns true if the image is available on this machine. `None` selects the default image from the server's
    /// configuration.
    async fn has_image(&self, image: Option<&str>) -> Result<bool, Error>;

    /// Pulls the image if it is not available on this machine. This may take minutes. Safe to cancel.
    async fn get_image(&self, image: Option<&str>) -> Result<(), Error>;

    /// Returns true if each sandbox runs as a separate user of the host's operating system.
    async fn has_own_users(&self) -> bool;

    /// Starts a sandbox. Returns without waiting for its guest, which will connect to the socket in `sandbox_dir`.
    async fn start(
        &self,
        sandbox_dir: &SandboxDir,
        spec: &Spec,
        reconnect_timeout: Duration,
    ) -> Result<Box<dyn EngineSandbox>, Error>;

    /// Returns a handle to the sandbox that a previous server process started in `sandbox_dir`. The sandbox may already
    /// have ended.
    async fn find(&self, sandbox_dir: &SandboxDir) -> Result<Box<dyn EngineSandbox>, Error>;
}

/// The engine's handle to one sandbox. It controls the sandbox's processes or its container from the host, and works
/// even if the guest is not connected.
#[async_trait]
pub(crate) trait EngineSandbox: Send + Sync {
    /// Called when the guest has connected. `stream` is the socket of the guest's connection.
    fn guest_connected(&self, stream: &UnixStream);

    /// Kills all processes of the sandbox from the host, without involving the guest. Does nothing if the sandbox has
    /// already ended.
    async fn kill(&self);

    /// Waits until all processes of the sandbox have exited. May be called repeatedly. Safe to cancel.
    async fn wait_ended(&self);

    /// Returns `false` only if all processes of the sandbox are known to have exited. Also works if a previous server
    /// process started the sandbox and its guest has not reconnected yet.
    async fn may_run(&self) -> bool;

    /// Removes the sandbox's resources from the host, for example its container or control groups. Called after the
    /// sandbox has ended.
    async fn clean_up(&self);

    /// Returns the reason why the sandbox did not start, as reported by the engine. If the sandbox is still running,
    /// returns a timeout error.
    async fn start_failure(&self) -> Error;
}
