//! Kills the host processes of a local sandbox and waits until they have exited. They are the guest and the bubblewrap
//! process. If a previous server process started the sandbox, only the guest is killed.

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
use tracing::Instrument as _;

/// The interval at which the server checks whether a guest has exited.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Handles to the host processes of a local sandbox.
pub(super) struct Process {
    /// A pidfd (process file descriptor) of the guest. It is `None` until the guest has connected. The guest is PID 1
    /// of the sandbox's PID namespace, so the kernel kills all other processes of the sandbox when the guest exits.
    guest: Mutex<Option<Arc<OwnedFd>>>,
    /// The state of the bubblewrap process, which runs outside the sandbox and exits after the guest.
    bubblewrap: watch::Sender<Bubblewrap>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Bubblewrap {
    /// A previous server process started bubblewrap, so bubblewrap is not a child of this process. This process cannot
    /// wait for it to exit.
    #[default]
    NotChild,
    Running,
    Killing,
    Ended,
}

impl Default for Process {
    fn default() -> Self {
        Self { guest: Mutex::default(), bubblewrap: watch::Sender::new(Bubblewrap::NotChild) }
    }
}

impl Process {
    fn guest(&self) -> Option<Arc<OwnedFd>> {
        self.guest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_guest(&self, stream: &UnixStream) {
        let pid = stream.peer_cred().ok().and_then(|peer| peer.pid()).and_then(Pid::from_raw);
        // Store a pidfd, which always refers to the same process. A process id could be reused for another process.
        let guest = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        *self.guest.lock().unwrap_or_else(PoisonError::into_inner) = guest.map(Arc::new);
    }

    pub(super) fn kill(&self) {
        if let Some(guest) = self.guest() {
            // This fails only if the guest has already exited.
            let _ = pidfd_send_signal(&*guest, Signal::KILL);
        }
        self.bubblewrap.send_if_modified(|state| {
            let is_running = *state == Bubblewrap::Running;
            if is_running {
                *state = Bubblewrap::Killing;
            }
            is_running
        });
    }

    pub(super) async fn wait_ended(&self) {
        let mut bubblewrap = self.bubblewrap.subscribe();
        // Cannot fail: `self` owns the sender, so the channel stays open.
        let _ = bubblewrap.wait_for(|state| matches!(state, Bubblewrap::NotChild | Bubblewrap::Ended)).await;
        while self.guest().is_some_and(|guest| is_running(&guest)) {
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Returns true if all processes of the sandbox have exited.
    pub(super) fn has_ended(&self) -> bool {
        let bubblewrap = *self.bubblewrap.borrow();
        matches!(bubblewrap, Bubblewrap::NotChild | Bubblewrap::Ended)
            && !self.guest().is_some_and(|guest| is_running(&guest))
    }
}

/// Spawns a task that waits for the bubblewrap process to exit, reaps it and records that it has exited.
pub(super) fn reap(process: Arc<Process>, mut child: Child) {
    process.bubblewrap.send_replace(Bubblewrap::Running);
    let reaped = async move {
        let mut state = process.bubblewrap.subscribe();
        let waited = tokio::select! {
            waited = child.wait() => waited.map(drop),
            () = async { drop(state.wait_for(|state| *state == Bubblewrap::Killing).await) } => child.kill().await,
        };
        if let Err(error) = waited {
            tracing::warn!(pid = child.id(), %error, "failed to wait for a sandbox's bubblewrap process to exit");
        }
        process.bubblewrap.send_replace(Bubblewrap::Ended);
        // Also kill the guest: if something killed only bubblewrap, the guest is still running and would conflict with
        // the next sandbox that has the same id.
        process.kill();
    };
    tokio::spawn(reaped.in_current_span());
}

/// Returns true if a process on the host has `name` as the first argument of its command line (`argv[0]`).
#[expect(clippy::disallowed_methods, reason = "reads below /proc, not a workspace")]
pub(super) fn exists(name: &str) -> bool {
    let has_name = |dir: PathBuf| {
        // A process that has exited but has not been reaped has an empty command line, so it does not match.
        let command_line = fs::read(dir.join("cmdline")).unwrap_or_default();
        command_line.split(|byte| *byte == 0).next() == Some(name.as_bytes())
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().any(|entry| has_name(entry.path()))
}

/// Returns true if the process has not exited. A pidfd becomes readable when its process exits.
fn is_running(process: &OwnedFd) -> bool {
    let mut poll_fds = [PollFd::new(process, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut poll_fds, Some(&now)), Ok(0) | Err(Errno::INTR))
}
