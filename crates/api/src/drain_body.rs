//! Reads and discards the rest of a request body after the request was rejected.
//!
//! If the server closed the connection while the client was still sending the body, the connection would be reset, and
//! the client might never receive the error response. The server therefore sends the response immediately, while a
//! background task reads and discards the rest of the body, up to a limit.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use http::HeaderMap;
use http::header::EXPECT;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;

/// The maximum number of bytes to discard from one request body: twice the default maximum size of a file upload. After
/// that, the server stops reading the body.
const MAX_BYTES: u64 = 200 * 1024 * 1024;
/// The maximum time for discarding the rest of one request body. After that, the server stops reading the body.
const MAX_TIME: Duration = Duration::from_secs(30);

/// Wraps the body of a request. If the body is dropped before it has been read completely, a background task reads and
/// discards the rest.
pub(crate) fn drain_on_drop(request: Request) -> Request {
    if waits_for_continue(request.headers()) {
        // The request has `Expect: 100-continue`. Its client sends the body only after it has received `100 Continue`,
        // so there is nothing to discard.
        return request;
    }
    request.map(|body| Body::new(DrainedBody { body }))
}

fn waits_for_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

struct DrainedBody {
    body: Body,
}

impl HttpBody for DrainedBody {
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

impl Drop for DrainedBody {
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            return;
        }
        let body = std::mem::take(&mut self.body);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(MAX_TIME, discard(body)));
        }
    }
}

async fn discard(mut body: Body) {
    let mut remaining = MAX_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let size = frame.data_ref().map_or(0, Bytes::len) as u64;
        match remaining.checked_sub(size) {
            Some(rest) => remaining = rest,
            None => return,
        }
    }
}
