//! Requests taken from a program, over either version of HTTP.

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

/// The most bytes of the head of a request or a response, its address included.
pub(crate) const MAX_HEAD_BYTES: usize = 64 * 1024;
/// The most fields of one.
pub(crate) const MAX_FIELDS: usize = 128;
/// How long a head may take to come, and how long a connection may wait for the next request.
const HEAD_LIMIT: Duration = Duration::from_secs(75);
/// The most requests at a time on one connection of HTTP/2.
const MAX_STREAMS: u32 = 100;

/// What is done with a connection once it has been handed over by an answer: nothing, for most.
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

/// Answers the requests of one connection until it ends or is handed over. What was handed over goes on outside, so
/// that all of a connection ends with the one who serves it.
pub(crate) async fn serve<S, A, F>(stream: S, protocol: Protocol, answer: A)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answering = answer(request);
        async move { Ok::<_, Infallible>(answering.await) }
    });
    let stream = TokioIo::new(stream);
    let served = match protocol {
        Protocol::Http1 => {
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_LIMIT)
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
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of a sandbox ended early");
    }
}
