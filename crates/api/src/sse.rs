//! Server-sent events: streams the events of a subscription as a response body.
//!
//! This module formats the events itself instead of using a library, so that all subscribers receive exactly the same
//! bytes for an event.

use std::fmt::Write as _;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse as _, Response};
use futures_util::{FutureExt as _, Stream, stream};
use herm_app::events::{StreamItem, Subscription};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue};
use tokio_util::sync::CancellationToken;

/// The time after which the server sends a heartbeat comment on an idle stream. The API promises a heartbeat at least
/// every 15 seconds.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// The size at which a chunk of the response is full, in bytes. Further events are sent in the next chunk.
const MAX_CHUNK_BYTES: usize = 64 * 1024;
/// The line that sets the client's reconnection delay, in milliseconds. It is sent at the start of a stream, and at the
/// end of a stream that ends because the server shuts down.
const RETRY: &str = "retry: 1000\n\n";

/// Creates a response that streams the events of a subscription. The response ends when the subscription ends, the
/// client disconnects, or `draining` is cancelled because the server shuts down.
pub(crate) fn response(subscription: Subscription, draining: CancellationToken) -> Response {
    let mut response = Body::from_stream(chunks(subscription, draining)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

enum State {
    Start(Subscription, CancellationToken),
    Open(Subscription, CancellationToken),
    Ended,
}

fn chunks(
    subscription: Subscription,
    draining: CancellationToken,
) -> impl Stream<Item = Result<Bytes, herm_app::Error>> + Send {
    stream::unfold(State::Start(subscription, draining), |state| async move {
        match state {
            State::Start(subscription, draining) => {
                let mut chunk = String::from(": herm\n");
                if let Some(position) = subscription.beginning() {
                    // The id of the start position lets the client resume even if the connection breaks before the
                    // first event.
                    let _ = writeln!(chunk, "id: {position}");
                }
                chunk.push_str(RETRY);
                Some((Ok(chunk.into()), State::Open(subscription, draining)))
            }
            State::Open(mut subscription, draining) => {
                let mut chunk = String::new();
                let is_open = tokio::select! {
                    next = subscription.next() => match next {
                        Ok(next) => collect(&mut chunk, next, &mut subscription).await,
                        Err(error) => return Some((Err(error), State::Ended)),
                    },
                    () = draining.cancelled() => {
                        chunk.push_str(RETRY);
                        false
                    }
                    () = tokio::time::sleep(HEARTBEAT) => {
                        // The id of the current position lets the client resume from here, even if the filter has
                        // skipped all events since the last id.
                        let _ = write!(chunk, ": still here\nid: {}\n\n", subscription.position());
                        true
                    }
                };
                let state = if is_open { State::Open(subscription, draining) } else { State::Ended };
                Some((Ok(chunk.into()), state))
            }
            State::Ended => None,
        }
    })
}

/// Appends `first` to the chunk, and then the items of the subscription that are available without waiting, up to
/// [`MAX_CHUNK_BYTES`]. Returns false if the subscription has ended.
async fn collect(chunk: &mut String, first: StreamItem, subscription: &mut Subscription) -> bool {
    let mut next = Some(first);
    while let Some(item) = next {
        match item {
            StreamItem::Event(event) => {
                // The result is ignored, because writing to a `String` cannot fail.
                let _ =
                    write!(chunk, "event: {}\nid: {}\ndata: {}\n\n", event.event, event.event_id, event.data);
            }
            StreamItem::Gap { requested, earliest, latest } => {
                // The `id` of a `gap` event is the position from which the stream continues. A client that resumes from
                // this id misses no stored event.
                let position = subscription.position();
                let _ = write!(
                    chunk,
                    "event: gap\nid: {position}\ndata: {{\"requested\":\"{requested}\",\"earliest\":\"{earliest}\",\
                     \"latest\":\"{latest}\"}}\n\n"
                );
            }
            StreamItem::End => return false,
        }
        if chunk.len() >= MAX_CHUNK_BYTES {
            return true;
        }
        // An error can be ignored here: the next call of `Subscription::next` returns the same error, which ends the
        // stream.
        next = subscription.next().now_or_never().and_then(Result::ok);
    }
    true
}
