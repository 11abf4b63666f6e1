//! Serves the HTTP/1.1 or HTTP/2 requests that programs in sandboxes send to the proxy.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::body::Body;
use crate::sender::Protocol;

/// The maximum size of the head of a request or response in bytes, including the URI. Larger heads are rejected.
pub(crate) const MAX_HEAD_BYTES: usize = 64 * 1024;
/// The maximum number of header fields in a request or response. Heads with more fields are rejected.
pub(crate) const MAX_FIELDS: usize = 128;
/// The maximum time to receive the head of an HTTP/1.1 request. If it takes longer, the connection is closed. This also
/// limits the idle time between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// The maximum number of concurrent requests on an HTTP/2 connection. The proxy announces it to the program.
const MAX_STREAMS: u32 = 100;

/// The protocol, for example WebSocket, that a connection switches to after HTTP, or `None` if it does not switch. The
/// request handler sets it, and the task that serves the connection takes it.
pub(crate) struct Handover<N>(Arc<Mutex<Option<N>>>);

impl<N> Clone for Handover<N> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<N> Handover<N> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    pub(crate) fn set(&self, next: N) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
    }

    pub(crate) fn take(&self) -> Option<N> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Serves the HTTP requests of a connection until the connection ends or switches to another protocol. The caller must
/// then serve that protocol in the same future, so that dropping the future always closes the connection.
pub(crate) async fn serve<S, A, F>(stream: S, protocol: Protocol, handler: A)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let response = handler(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let stream = TokioIo::new(stream);
    let result = match protocol {
        Protocol::Http1 => {
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_header_size(MAX_HEAD_BYTES)
                .max_headers(MAX_FIELDS)
                .serve_connection(stream, service)
                .with_upgrades()
                .await
        }
        Protocol::Http2 => {
            http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
                .serve_connection(stream, service)
                .await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a sandbox's HTTP connection to the proxy failed");
    }
}
