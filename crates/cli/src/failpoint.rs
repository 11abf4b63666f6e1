//! Kills this server process at a failpoint, for crash tests. A failpoint is a named place in the code. Its
//! name consists of a moment, for example `commit.before`, and a subject, for example the name of a
//! transaction.
//!
//! The environment variable `HERM_FAILPOINT` has the form `moment:subject` or `moment:subject#n`. When this
//! failpoint is reached for the n-th time (by default the first), the process is killed as by `kill -9`. With
//! the value `list`, the process is not killed, but writes a line `failpoint: moment:subject` to stderr for
//! each failpoint that it reaches.
//!
//! `HERM_FAILPOINT_DRAIN_S` is the number of seconds for which runs may continue after shutdown is requested.
//! Shutdown tests set it, because the default time is too short on a busy machine.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

pub(crate) fn install() {
    let Ok(requested) = std::env::var("HERM_FAILPOINT") else { return };
    if requested == "list" {
        herm_store::failpoint::install(list);
        return;
    }
    let (name, nth) = match requested.split_once('#') {
        Some((name, nth)) => (name.to_owned(), nth.parse().unwrap_or(1)),
        None => (requested, 1),
    };
    let reached = AtomicUsize::new(0);
    herm_store::failpoint::install(move |point| {
        if point == name && reached.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            // SIGKILL ends the process without running destructors or flushing buffers.
            let _ = kill_process(getpid(), Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    });
}

/// Returns the time for which runs may continue after shutdown is requested, or `None` if
/// `HERM_FAILPOINT_DRAIN_S` is not set.
pub(crate) fn drain_runs() -> Option<Duration> {
    let seconds = std::env::var("HERM_FAILPOINT_DRAIN_S").ok()?;
    seconds.parse().ok().map(Duration::from_secs)
}

#[expect(clippy::print_stderr, reason = "tests read this output")]
fn list(point: &str) {
    eprintln!("failpoint: {point}");
}
