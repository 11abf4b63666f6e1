//! The processes of a local sandbox, as the host sees them: bubblewrap, if this server started it, and the guest.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::sleep;

/// Between two looks whether a guest that is ending has ended.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What runs of a sandbox.
pub(super) struct Process {
    /// The guest, which is the one that dialled: PID 1 of the sandbox. With it every process of the sandbox ends: the
    /// kernel ends PID 1 of a namespace last.
    guest: Mutex<Option<Arc<OwnedFd>>>,
    /// Bubblewrap itself, which waits outside.
    bubblewrap: watch::Sender<Bubblewrap>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Bubblewrap {
    /// An earlier server started it.
    #[default]
    NotOurs,
    Runs,
    IsToEnd,
    Ended,
}

impl Default for Process {
    fn default() -> Self {
        Self { guest: Mutex::default(), bubblewrap: watch::Sender::new(Bubblewrap::NotOurs) }
    }
}

impl Process {
    fn guest(&self) -> Option<Arc<OwnedFd>> {
        self.guest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn met(&self, stream: &UnixStream) {
        let pid = stream.peer_cred().ok().and_then(|peer| peer.pid()).and_then(Pid::from_raw);
        // A descriptor is of this process for good, where a number may become another's.
        let guest = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        *self.guest.lock().unwrap_or_else(PoisonError::into_inner) = guest.map(Arc::new);
    }

    pub(super) fn kill(&self) {
        if let Some(guest) = self.guest() {
            // One that has ended meanwhile is as dead as it was to be.
            let _ = pidfd_send_signal(&*guest, Signal::KILL);
        }
        self.bubblewrap.send_if_modified(|state| {
            let runs = *state == Bubblewrap::Runs;
            if runs {
                *state = Bubblewrap::IsToEnd;
            }
            runs
        });
    }

    pub(super) async fn ended(&self) {
        let mut bubblewrap = self.bubblewrap.subscribe();
        // The sender lives as long as this borrow.
        let _ = bubblewrap.wait_for(|state| matches!(state, Bubblewrap::NotOurs | Bubblewrap::Ended)).await;
        while self.guest().is_some_and(|guest| runs(&guest)) {
            sleep(LOOK_EVERY).await;
        }
    }

    /// Whether nothing of it runs any more.
    pub(super) fn is_gone(&self) -> bool {
        let bubblewrap = *self.bubblewrap.borrow();
        matches!(bubblewrap, Bubblewrap::NotOurs | Bubblewrap::Ended)
            && !self.guest().is_some_and(|guest| runs(&guest))
    }
}

/// Waits for bubblewrap's end on a task of its own, so that it leaves no zombie and its guest is known to be gone.
pub(super) fn reap(process: Arc<Process>, mut child: Child) {
    process.bubblewrap.send_replace(Bubblewrap::Runs);
    tokio::spawn(async move {
        let mut asked = process.bubblewrap.subscribe();
        let waited = tokio::select! {
            waited = child.wait() => waited.map(drop),
            () = async { drop(asked.wait_for(|state| *state == Bubblewrap::IsToEnd).await) } => child.kill().await,
        };
        if let Err(error) = waited {
            tracing::warn!(%error, "failed to wait for a sandbox");
        }
        process.bubblewrap.send_replace(Bubblewrap::Ended);
        // If bubblewrap alone was ended, its guest goes on, and would beside the one that takes its place.
        process.kill();
    });
}

/// Whether there is a process of this name on the host.
pub(super) fn is_listed(name: &str) -> bool {
    let has_name = |dir: PathBuf| {
        // One that has ended has none.
        let command_line = fs::read(dir.join("cmdline")).unwrap_or_default();
        command_line.split(|byte| *byte == 0).next() == Some(name.as_bytes())
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().any(|entry| has_name(entry.path()))
}

/// Whether the process has not ended; its descriptor becomes readable when it has.
fn runs(process: &OwnedFd) -> bool {
    let mut looked = [PollFd::new(process, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut looked, Some(&now)), Ok(0) | Err(Errno::INTR))
}
