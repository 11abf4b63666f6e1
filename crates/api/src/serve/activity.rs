//! Counts the active requests of a connection, to detect idle connections.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use tokio::sync::watch;

#[derive(Clone, Copy, Default)]
struct Requests {
    active: usize,
    /// True if the connection has ever had a request, active or completed.
    has_had_any: bool,
}

/// The number of active requests of one connection.
#[derive(Default)]
pub(super) struct Activity(watch::Sender<Requests>);

impl Activity {
    /// Adds an active request. It is removed when the returned guard is dropped.
    pub(super) fn begin(&self) -> ActiveRequest {
        self.0
            .send_modify(|requests| *requests = Requests { active: requests.active + 1, has_had_any: true });
        ActiveRequest(self.0.clone())
    }

    /// Waits until the connection has been idle for too long: for `first` if it has never had a request, or for `later`
    /// since its last request.
    pub(super) async fn wait_idle(&self, first: Duration, later: Duration) {
        let mut requests = self.0.subscribe();
        loop {
            let Requests { active, has_had_any } = *requests.borrow_and_update();
            let changed = requests.changed();
            if active > 0 {
                // `changed` fails only if the sender is dropped, but `self` owns the sender.
                let _ = changed.await;
            } else if tokio::time::timeout(if has_had_any { later } else { first }, changed).await.is_err() {
                return;
            }
        }
    }
}

/// A guard for an active request. The request counts as active until the guard is dropped.
pub(super) struct ActiveRequest(watch::Sender<Requests>);

impl ActiveRequest {
    /// Moves the guard into the response body, so that the request stays active until the body has been sent or
    /// dropped.
    pub(super) fn track_body(self, body: Body) -> TrackedBody {
        TrackedBody { body, _request: self }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.send_modify(|requests| requests.active = requests.active.saturating_sub(1));
    }
}

/// A response body that holds the guard of its request. The request counts as active until the body is dropped.
pub(super) struct TrackedBody {
    body: Body,
    _request: ActiveRequest,
}

impl HttpBody for TrackedBody {
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
