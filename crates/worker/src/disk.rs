//! Watches the disk usage of a workspace while a command runs in its sandbox. The server does this because few file
//! systems enforce quotas themselves.

use std::path::PathBuf;
use std::time::Duration;

use herm_sandbox::workspace::{self, usage};
use tokio::time::{Instant, sleep};

/// The minimum pause between two checks of the disk usage. A command is stopped at the second check in a row that
/// finds the workspace over its quota, if the workspace is still growing.
const CHECK_INTERVAL: Duration = Duration::from_millis(700);
/// The minimum ratio of the pause after a check to the duration of the check. A check of a workspace with many files
/// takes longer, so such workspaces are checked less often.
const PAUSE_FACTOR: u32 = 10;

/// Returns once the workspace holds more than `limit_bytes` and has grown since the previous check. If a workspace over
/// the limit is shrinking, waits until it grows again.
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
