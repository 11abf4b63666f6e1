//! A paused time that stands still until a test lets it go.

use std::sync::mpsc::{Sender, channel};

/// Keeps a paused time from jumping on until it is dropped. Without it, time jumps to whatever is due next whenever
/// the runtime waits for nothing but the database or a socket, however soon that would answer.
pub(crate) struct StandingTime {
    _held: Sender<()>,
}

impl StandingTime {
    /// Holds the time of a test that has `start_paused = true`.
    pub(crate) fn hold() -> Self {
        let (held, until_dropped) = channel();
        // Tokio lets time jump only when no blocking task is at work.
        tokio::task::spawn_blocking(move || until_dropped.recv());
        Self { _held: held }
    }
}
