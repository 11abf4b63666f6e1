//! Watches the disk usage of a workspace while a command runs in its sandbox. The server does this because few file
//! systems enforce quotas themselves.

use std::path::PathBuf;
use std::time::Duration;

use herm_sandbox::workspace::{self, usage};
use tokio::time::{Instant, sleep};

/// The minimum pause between two checks of the disk usage. A command is stopped when two consecutive checks find the
/// workspace over its quota and the second check finds more bytes than the first.
const CHECK_INTERVAL: Duration = Duration::from_millis(700);
/// After a check that took a time T, the pause until the next check is at least this factor times T. Checks take longer
/// in workspaces with many files, so these workspaces are checked less often.
const PAUSE_FACTOR: u32 = 10;

/// Returns when two consecutive checks have found more than `limit_bytes` in the workspace, and the second has found
/// more bytes than the first. While a workspace over the limit is not growing, keeps waiting.
pub(crate) async fn wait_until_over_quota(dir: PathBuf, limit_bytes: u64) {
    let (mut previous_excess, mut pause) = (None, CHECK_INTERVAL);
    loop {
        sleep(pause).await;
        let started = Instant::now();
        let checked_dir = dir.clone();
        let used_bytes = match tokio::task::spawn_blocking(move || usage(&checked_dir)).await {
            Ok(Ok(used_bytes)) => used_bytes,
            // A workspace with too many files to be measured counts as over the limit.
            Ok(Err(workspace::Error::TooManyToMeasure)) => return,
            // The check can fail because a command changes files at the same time. The next check may succeed.
            Ok(Err(_)) | Err(_) => continue,
        };
        if used_bytes > limit_bytes && previous_excess.is_some_and(|before| used_bytes > before) {
            return;
        }
        previous_excess = (used_bytes > limit_bytes).then_some(used_bytes);
        pause = CHECK_INTERVAL.max(started.elapsed() * PAUSE_FACTOR);
    }
}
