//! A point in a reply that waits for the test.

use std::sync::Arc;

use tokio::sync::watch;

/// A point at which replies wait until the test opens it; clones are the same gate, and it stays open.
#[derive(Clone, Debug)]
pub struct Gate {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    is_open: watch::Sender<bool>,
    arrivals: watch::Sender<usize>,
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared { is_open: watch::Sender::new(false), arrivals: watch::Sender::new(0) }),
        }
    }

    /// Lets everything through that waits here or comes later.
    pub fn open(&self) {
        self.shared.is_open.send_replace(true);
    }

    /// Waits until a reply has reached this gate; what comes before it in the reply has been sent then.
    pub async fn reached(&self) {
        self.reached_times(1).await;
    }

    /// Waits until replies have reached this gate so many times since it was made.
    pub async fn reached_times(&self, n: usize) {
        // The sender lives as long as this gate does, so the wait cannot fail.
        let _ = self.shared.arrivals.subscribe().wait_for(|arrivals| *arrivals >= n).await;
    }

    /// A reply's side: arrives and waits for the gate to be open.
    pub(super) async fn pass(&self) {
        self.shared.arrivals.send_modify(|arrivals| *arrivals += 1);
        let _ = self.shared.is_open.subscribe().wait_for(|is_open| *is_open).await;
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}
