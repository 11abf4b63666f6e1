//! What starts sandboxes: one engine for each kind, all with the same guest inside.

use std::time::Duration;

use async_trait::async_trait;
use tokio::net::UnixStream;

use crate::place::Place;
use crate::spec::{Error, Spec};

/// How long a sandbox may take to start, on a machine that is busy with others.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(120);
/// Who commands run as, inside, where nothing else is said.
pub(crate) const USER_ID: u32 = 1000;
/// Where commands look for programs.
pub(crate) const USUAL_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Sizes of the directories that live in memory.
pub(crate) const TMP_BYTES: u64 = 512 * 1024 * 1024;
pub(crate) const SHM_BYTES: u64 = 64 * 1024 * 1024;
/// Where the directory with the server's socket is, inside.
pub(crate) const SOCKET_DIR: &str = "/run/herm/socket";
/// Where the guest's program is, inside.
pub(crate) const GUEST_PATH: &str = "/run/herm/guest";

/// What every command finds in its environment.
pub(crate) const USUAL_ENV: [(&str, &str); 4] =
    [("HOME", "/workspace"), ("USER", "agent"), ("LANG", "C.UTF-8"), ("TERM", "dumb")];

/// What of `/proc` tells about the whole machine, and is readable for the system's root, who a sandbox's user is to
/// the kernel if the server is.
pub(crate) const MASKED: [&str; 16] = [
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

/// Starts sandboxes of one kind.
#[async_trait]
pub(crate) trait Engine: Send + Sync {
    /// Whether a sandbox can be started here, its image aside.
    async fn check(&self) -> Result<(), Error>;

    /// Whether this image, or for `None` the server's own, is there already.
    async fn has_image(&self, image: Option<&str>) -> Result<bool, Error>;

    /// Gets that image, if it is not there, which may take minutes. It may be given up at any time.
    async fn get_image(&self, image: Option<&str>) -> Result<(), Error>;

    /// Whether each sandbox has a user of its own to the host's kernel.
    async fn has_users(&self) -> bool;

    /// Starts a sandbox, whose guest will dial the socket of this place.
    async fn start(&self, place: &Place, spec: &Spec, away: Duration) -> Result<Box<dyn Body>, Error>;

    /// The body of a sandbox that an earlier server started in this place, if it still may be there.
    async fn find(&self, place: &Place) -> Result<Box<dyn Body>, Error>;
}

/// A sandbox as it is seen from outside.
#[async_trait]
pub(crate) trait Body: Send + Sync {
    /// Its guest has dialled over this connection.
    fn met(&self, stream: &UnixStream);

    /// Ends everything in it, without the guest's help. One that has ended is as dead as it was to be.
    async fn kill(&self);

    /// Waits until nothing of it runs. May be asked several times, and given up.
    async fn ended(&self);

    /// Whether something of it may run still, as far as the host tells; also of one that an earlier server started and
    /// whose guest has not dialled.
    async fn may_run(&self) -> bool;

    /// Removes what it leaves on the host, once it has ended.
    async fn clear(&self);

    /// Why it ended before its guest dialled, in the engine's own words.
    async fn reason(&self) -> Error;
}
