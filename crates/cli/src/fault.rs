//! Ends this server at a named fault point, for the tests of what survives that.
//!
//! `HERM_FAULT_POINT` is `moment:subject` or `moment:subject#n`: the n-th time that this point is reached, the
//! process is killed as `kill -9` does it. `HERM_FAULT_POINT` as `list` kills nothing, and writes each point that is
//! reached to standard error, as a line `fault point: moment:subject`.
//!
//! `FAULT_POINTS_DRAIN_S` says how many seconds runs may go on after the server was told to stop, for tests of what it ends
//! first, which must hold on a machine of any speed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

pub(crate) fn install() {
    let Ok(wanted) = std::env::var("HERM_FAULT_POINT") else { return };
    if wanted == "list" {
        herm_store::fault::install(list);
        return;
    }
    let (name, nth) = match wanted.split_once('#') {
        Some((name, nth)) => (name.to_owned(), nth.parse().unwrap_or(1)),
        None => (wanted, 1),
    };
    let reached = AtomicUsize::new(0);
    herm_store::fault::install(move |point| {
        if point == name && reached.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            // Nothing after this runs: no destructor, no flush.
            let _ = kill_process(getpid(), Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    });
}

/// How long runs may go on after the server was told to stop, where a test says so.
pub(crate) fn drain() -> Option<Duration> {
    let seconds = std::env::var("FAULT_POINTS_DRAIN_S").ok()?;
    seconds.parse().ok().map(Duration::from_secs)
}

#[expect(clippy::print_stderr, reason = "read by tests, in a build for tests")]
fn list(point: &str) {
    eprintln!("fault point: {point}");
}
