//! What is left of a request's body once it was refused.
//!
//! A connection that is closed while the client still writes is reset, and the client may never read why it was
//! refused. So the answer goes out at once, and the rest of the body is read and thrown away beside it, up to a limit.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use http::HeaderMap;
use http::header::EXPECT;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;

/// Bytes that are thrown away, at most: twice the largest file that may be written by default.
const MAX_BYTES: u64 = 200 * 1024 * 1024;
/// For how long that goes on, at most.
const MAX_TIME: Duration = Duration::from_secs(30);

/// Makes a request whose body is read to its end, whoever drops it before.
pub(crate) fn request(request: Request) -> Request {
    if waits_for_continue(request.headers()) {
        // This client sends nothing before it is asked to.
        return request;
    }
    request.map(|body| Body::new(Lingering { body }))
}

fn waits_for_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

struct Lingering {
    body: Body,
}

impl HttpBody for Lingering {
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

impl Drop for Lingering {
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            return;
        }
        let body = std::mem::take(&mut self.body);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(MAX_TIME, throw_away(body)));
        }
    }
}

async fn throw_away(mut body: Body) {
    let mut left = MAX_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let size = frame.data_ref().map_or(0, Bytes::len) as u64;
        match left.checked_sub(size) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
