//! The disk quota of a sandbox, watched while its commands run: file systems that bound it themselves are rare.

use std::path::PathBuf;
use std::time::Duration;

use herm_sandbox::workspace::{self, usage};
use tokio::time::{Instant, sleep};

/// Between two looks; a command that goes on filling a full workspace is stopped at the second.
const LOOK_EVERY: Duration = Duration::from_millis(700);
/// A look may take this part of the time at most: a workspace of many files is looked at less often.
const SHARE_OF_TIME: u32 = 10;

/// Waits until the workspace holds more than `limit_bytes` and still grows. A command that frees room is let go on.
pub(crate) async fn overfull(dir: PathBuf, limit_bytes: u64) {
    let (mut too_much, mut pause) = (None, LOOK_EVERY);
    loop {
        sleep(pause).await;
        let begun = Instant::now();
        let looked = dir.clone();
        let held = match tokio::task::spawn_blocking(move || usage(&looked)).await {
            Ok(Ok(held)) => held,
            // So much that it is not counted is more than any limit.
            Ok(Err(workspace::Error::TooMuch)) => return,
            // It changes under the look's feet; the next one may see more.
            Ok(Err(_)) | Err(_) => continue,
        };
        if held > limit_bytes && too_much.is_some_and(|before| held > before) {
            return;
        }
        too_much = (held > limit_bytes).then_some(held);
        pause = LOOK_EVERY.max(begun.elapsed() * SHARE_OF_TIME);
    }
}
