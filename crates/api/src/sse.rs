//! Server-sent events: a subscription as the body of a response.
//!
//! The frames are written here, byte by byte as the standard has them, so that what is committed once looks the
//! same to every subscriber.

use std::fmt::Write as _;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse as _, Response};
use futures_util::{FutureExt as _, Stream, stream};
use herm_app::events::{Next, Subscription};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue};
use tokio_util::sync::CancellationToken;

/// Between two comments of a silent stream. The contract says 15 s at most.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Bytes that are gathered into one write while events are at hand.
const MAX_CHUNK_BYTES: usize = 64 * 1024;
/// How a stream begins and, while the server stops, ends: when to come back, in milliseconds.
const RETRY: &str = "retry: 1000\n\n";

/// Streams the subscription until it ends, the server stops or the client goes.
pub(crate) fn response(subscription: Subscription, draining: CancellationToken) -> Response {
    let mut response = Body::from_stream(chunks(subscription, draining)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

enum State {
    Beginning(Subscription, CancellationToken),
    Open(Subscription, CancellationToken),
    Ended,
}

fn chunks(
    subscription: Subscription,
    draining: CancellationToken,
) -> impl Stream<Item = Result<Bytes, herm_app::Error>> + Send {
    stream::unfold(State::Beginning(subscription, draining), |state| async move {
        match state {
            State::Beginning(subscription, draining) => {
                let mut chunk = String::from(": herm\n");
                if let Some(position) = subscription.beginning() {
                    // A connection that breaks before its first event can then be resumed all the same.
                    let _ = writeln!(chunk, "id: {position}");
                }
                chunk.push_str(RETRY);
                Some((Ok(chunk.into()), State::Open(subscription, draining)))
            }
            State::Open(mut subscription, draining) => {
                let mut chunk = String::new();
                let goes_on = tokio::select! {
                    next = subscription.next() => match next {
                        Ok(next) => gather(&mut chunk, next, &mut subscription).await,
                        Err(error) => return Some((Err(error), State::Ended)),
                    },
                    () = draining.cancelled() => {
                        chunk.push_str(RETRY);
                        false
                    }
                    () = tokio::time::sleep(HEARTBEAT) => {
                        // The id lets a resume begin here, also where a filter let nothing pass.
                        let _ = write!(chunk, ": still here\nid: {}\n\n", subscription.position());
                        true
                    }
                };
                let state = if goes_on { State::Open(subscription, draining) } else { State::Ended };
                Some((Ok(chunk.into()), state))
            }
            State::Ended => None,
        }
    })
}

/// Writes what comes next and whatever else is at hand; `false` when nothing follows.
async fn gather(chunk: &mut String, first: Next, subscription: &mut Subscription) -> bool {
    let mut next = Some(first);
    while let Some(one) = next {
        match one {
            Next::Event(event) => {
                // Writing to a String cannot fail.
                let _ =
                    write!(chunk, "event: {}\nid: {}\ndata: {}\n\n", event.event, event.event_id, event.data);
            }
            Next::Gap { requested, earliest, latest } => {
                // The id is where the stream goes on: a resume misses nothing of what is kept.
                let position = subscription.position();
                let _ = write!(
                    chunk,
                    "event: gap\nid: {position}\ndata: {{\"requested\":\"{requested}\",\"earliest\":\"{earliest}\",\
                     \"latest\":\"{latest}\"}}\n\n"
                );
            }
            Next::End => return false,
        }
        if chunk.len() >= MAX_CHUNK_BYTES {
            return true;
        }
        // What fails now fails again at the next turn, and is told then.
        next = subscription.next().now_or_never().and_then(Result::ok);
    }
    true
}
