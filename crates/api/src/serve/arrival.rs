//! A request's body as it arrives: one whose next piece does not come is broken off.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

/// How long the next piece of a body may take, once somebody waits for it.
const PIECE_LIMIT: Duration = Duration::from_secs(30);

pub(super) struct Arrival {
    body: Body,
    /// Runs while a piece is waited for; made when one first has to be.
    deadline: Option<Pin<Box<Sleep>>>,
    waits: bool,
}

impl Arrival {
    pub(super) fn new(body: Body) -> Self {
        Self { body, deadline: None, waits: false }
    }
}

impl HttpBody for Arrival {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_ready() {
            self.waits = false;
            return frame;
        }
        let begins_to_wait = !std::mem::replace(&mut self.waits, true);
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(PIECE_LIMIT)));
        if begins_to_wait {
            deadline.as_mut().reset(Instant::now() + PIECE_LIMIT);
        }
        deadline.as_mut().poll(context).map(|()| {
            let error = io::Error::new(io::ErrorKind::TimedOut, "the client sends nothing more of the body");
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
