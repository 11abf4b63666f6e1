//! The memory and file descriptors of a process, read from `/proc`.

use std::fs;
use std::time::Duration;

/// The memory and file descriptors of a server process at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// The time from when the server became ready until the measurement.
    pub(super) age: Duration,
    pub(super) rss_kib: u64,
    pub(super) fds: u64,
}

impl Usage {
    pub(super) fn of(pid: u32, age: Duration) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let rss_kib = rss.split_whitespace().next().unwrap().parse().unwrap();
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
        Self { age, rss_kib, fds }
    }
}
