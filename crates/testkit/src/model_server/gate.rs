//! Gates. A scripted reply that reaches a gate pauses there until the test opens the gate.

use std::sync::Arc;

use tokio::sync::watch;

/// A point in a reply at which the provider waits until the test opens the gate. An open gate stays open. Clones share
/// one gate.
#[derive(Clone, Debug)]
pub struct Gate {
    state: Arc<GateState>,
}

#[derive(Debug)]
struct GateState {
    is_open: watch::Sender<bool>,
    arrivals: watch::Sender<usize>,
}

impl Gate {
    /// Creates a closed gate.
    pub fn new() -> Self {
        Self {
            state: Arc::new(GateState {
                is_open: watch::Sender::new(false),
                arrivals: watch::Sender::new(0),
            }),
        }
    }

    /// Opens the gate. Replies that wait at it continue, and later replies pass it without waiting.
    pub fn open(&self) {
        self.state.is_open.send_replace(true);
    }

    /// Waits until a reply has reached this gate. Everything before the gate has been sent by then.
    pub async fn reached(&self) {
        self.reached_times(1).await;
    }

    /// Waits until replies have reached this gate `n` times in total.
    pub async fn reached_times(&self, n: usize) {
        // `wait_for` fails only if the sender is dropped, but `self` holds the sender.
        let _ = self.state.arrivals.subscribe().wait_for(|arrivals| *arrivals >= n).await;
    }

    /// Records that a reply has reached the gate, and waits until the gate is open. Called while the reply is sent.
    pub(super) async fn pass(&self) {
        self.state.arrivals.send_modify(|arrivals| *arrivals += 1);
        let _ = self.state.is_open.subscribe().wait_for(|is_open| *is_open).await;
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}
