//! Failpoints: named points in the code at which a test can end the process. They are before and after each commit,
//! before and after each model call and tool call, and between the stages of longer jobs. This module can also
//! simulate two failures: a full disk, and the loss of the wake-ups that tell workers about new work items.
//!
//! Without the feature `failpoints`, a failpoint does nothing.

#[cfg(feature = "failpoints")]
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(feature = "failpoints")]
type Hook = Box<dyn Fn(&str) + Send + Sync>;

#[cfg(feature = "failpoints")]
static HOOK: std::sync::OnceLock<Hook> = std::sync::OnceLock::new();

#[cfg(feature = "failpoints")]
static DISK_IS_FULL: AtomicBool = AtomicBool::new(false);

#[cfg(feature = "failpoints")]
static HINTS_ARE_LOST: AtomicBool = AtomicBool::new(false);

/// Installs the function that runs at each failpoint. The function receives the failpoint's name, for example
/// `commit.before:send_message`. Returns false if a function is already installed.
#[cfg(feature = "failpoints")]
pub fn install(hook: impl Fn(&str) + Send + Sync + 'static) -> bool {
    HOOK.set(Box::new(hook)).is_ok()
}

/// Starts or stops simulating a full disk, for every database that this process has open.
#[cfg(feature = "failpoints")]
pub fn fill_disk(is_full: bool) {
    DISK_IS_FULL.store(is_full, Ordering::SeqCst);
}

/// Starts or stops dropping all wake-ups for new work items.
#[cfg(feature = "failpoints")]
pub fn lose_hints(are_lost: bool) {
    HINTS_ARE_LOST.store(are_lost, Ordering::SeqCst);
}

#[cfg(feature = "failpoints")]
pub(crate) fn disk_is_full() -> bool {
    DISK_IS_FULL.load(Ordering::SeqCst)
}

#[cfg(feature = "failpoints")]
pub(crate) fn hints_are_lost() -> bool {
    HINTS_ARE_LOST.load(Ordering::SeqCst)
}

/// Passes the failpoint's name, `moment:subject`, to the installed function, if there is one. In the name
/// `commit.before:send_message`, for example, the moment is `commit.before` and the subject is the transaction
/// `send_message`.
#[inline]
pub fn reach(moment: &str, subject: &str) {
    #[cfg(feature = "failpoints")]
    if let Some(hook) = HOOK.get() {
        hook(&format!("{moment}:{subject}"));
    }
    #[cfg(not(feature = "failpoints"))]
    let _ = (moment, subject);
}
