//! Named points where a test may end the process: before and after each commit and each effect.
//!
//! Without the feature `fault-points` they compile to nothing.

#[cfg(feature = "fault-points")]
type Hook = Box<dyn Fn(&str) + Send + Sync>;

#[cfg(feature = "fault-points")]
static HOOK: std::sync::OnceLock<Hook> = std::sync::OnceLock::new();

/// Says what happens at a fault point: `hook` gets its name, such as `commit.before:send_message`. Once only.
#[cfg(feature = "fault-points")]
pub fn install(hook: impl Fn(&str) + Send + Sync + 'static) -> bool {
    HOOK.set(Box::new(hook)).is_ok()
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
