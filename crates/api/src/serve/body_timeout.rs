//! A wrapper around a request body that makes reading fail if the client stops sending the body.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

/// The maximum time to wait for the next chunk of a request body. After that, reading the body fails. Time during which
/// the handler does not read the body is not counted.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct BodyTimeout {
    body: Body,
    /// The deadline for the next chunk. `None` until the body waits for a chunk for the first time.
    deadline: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
}

impl BodyTimeout {
    pub(super) fn new(body: Body) -> Self {
        Self { body, deadline: None, is_waiting: false }
    }
}

impl HttpBody for BodyTimeout {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_ready() {
            self.is_waiting = false;
            return frame;
        }
        let starts_waiting = !std::mem::replace(&mut self.is_waiting, true);
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(CHUNK_TIMEOUT)));
        if starts_waiting {
            deadline.as_mut().reset(Instant::now() + CHUNK_TIMEOUT);
        }
        deadline.as_mut().poll(context).map(|()| {
            let error =
                io::Error::new(io::ErrorKind::TimedOut, "the client stopped sending the request body");
            Some(Err(axum::Error::new(error)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
