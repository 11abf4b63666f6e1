//! Control of Tokio's paused clock.

use std::sync::mpsc::{Sender, channel};

/// Prevents Tokio's paused clock from advancing automatically.
///
/// A paused clock advances to the next timer whenever the runtime is idle, even if a task is waiting for a socket, a
/// process or the database. On a slow machine, a test would then run into its own timeouts. While this value exists,
/// the clock advances only by calls of `tokio::time::advance`.
///
/// Use it in tests with `#[tokio::test(start_paused = true)]`.
#[must_use = "the clock may advance as soon as this value is dropped"]
pub struct FrozenTime {
    _blocking_task: Sender<()>,
}

impl FrozenTime {
    /// Prevents the paused clock of the current runtime from advancing automatically until the returned value is
    /// dropped.
    ///
    /// # Panics
    /// Panics outside a Tokio runtime.
    pub fn hold() -> Self {
        let (sender, receiver) = channel();
        // Tokio does not advance a paused clock while a blocking task runs. This blocking task runs until the sender is
        // dropped.
        tokio::task::spawn_blocking(move || receiver.recv());
        Self { _blocking_task: sender }
    }
}
