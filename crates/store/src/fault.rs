//! Named points where a test may end the process: before and after each commit and each effect; and troubles that a test
//! may make: a disk that is full, hints that get lost.
//!
//! Without the feature `fault-points` they compile to nothing.

#[cfg(feature = "fault-points")]
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(feature = "fault-points")]
type Hook = Box<dyn Fn(&str) + Send + Sync>;

#[cfg(feature = "fault-points")]
static HOOK: std::sync::OnceLock<Hook> = std::sync::OnceLock::new();

#[cfg(feature = "fault-points")]
static DISK_IS_FULL: AtomicBool = AtomicBool::new(false);

#[cfg(feature = "fault-points")]
static HINTS_ARE_LOST: AtomicBool = AtomicBool::new(false);

/// Says what happens at a fault point: `hook` gets its name, such as `commit.before:send_message`. Once only.
#[cfg(feature = "fault-points")]
pub fn install(hook: impl Fn(&str) + Send + Sync + 'static) -> bool {
    HOOK.set(Box::new(hook)).is_ok()
}

/// From now on no database of this process may grow, or it may again.
#[cfg(feature = "fault-points")]
pub fn fill_disk(is_full: bool) {
    DISK_IS_FULL.store(is_full, Ordering::SeqCst);
}

/// From now on nobody is told that there is work, or everybody is again.
#[cfg(feature = "fault-points")]
pub fn lose_hints(are_lost: bool) {
    HINTS_ARE_LOST.store(are_lost, Ordering::SeqCst);
}

#[cfg(feature = "fault-points")]
pub(crate) fn disk_is_full() -> bool {
    DISK_IS_FULL.load(Ordering::SeqCst)
}

#[cfg(feature = "fault-points")]
pub(crate) fn hints_are_lost() -> bool {
    HINTS_ARE_LOST.load(Ordering::SeqCst)
}

/// Marks a point: `moment` such as `commit.before`, `subject` such as the transaction's name.
#[inline]
pub fn reach(moment: &str, subject: &str) {
    #[cfg(feature = "fault-points")]
    if let Some(hook) = HOOK.get() {
        hook(&format!("{moment}:{subject}"));
    }
    #[cfg(not(feature = "fault-points"))]
    let _ = (moment, subject);
}
