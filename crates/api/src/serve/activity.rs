//! Whether a connection is used: how many of its requests are under way.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use tokio::sync::watch;

#[derive(Clone, Copy, Default)]
struct Requests {
    under_way: usize,
    /// Whether there has been one at all.
    any: bool,
}

/// The requests of one connection.
#[derive(Default)]
pub(super) struct Activity(watch::Sender<Requests>);

impl Activity {
    /// A request begins.
    pub(super) fn begin(&self) -> UnderWay {
        self.0.send_modify(|requests| *requests = Requests { under_way: requests.under_way + 1, any: true });
        UnderWay(self.0.clone())
    }

    /// Waits until no request has been under way for so long: `first` before there has been one, then `later`.
    pub(super) async fn none_for(&self, first: Duration, later: Duration) {
        let mut requests = self.0.subscribe();
        loop {
            let Requests { under_way, any } = *requests.borrow_and_update();
            let changed = requests.changed();
            if under_way > 0 {
                // Its sender is here, so that it cannot have gone.
                let _ = changed.await;
            } else if tokio::time::timeout(if any { later } else { first }, changed).await.is_err() {
                return;
            }
        }
    }
}

/// A request under way; it ends when this is dropped.
pub(super) struct UnderWay(watch::Sender<Requests>);

impl UnderWay {
    /// The body of its answer, with which it ends.
    pub(super) fn until_sent(self, body: Body) -> Answer {
        Answer { body, _under_way: self }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|requests| requests.under_way = requests.under_way.saturating_sub(1));
    }
}

/// A body that is being sent.
pub(super) struct Answer {
    body: Body,
    _under_way: UnderWay,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
