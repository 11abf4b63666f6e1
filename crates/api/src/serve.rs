//! Accepts connections, enforces their timeouts, and shuts them down gracefully.
//!
//! A connection without an active request is closed after a timeout. A request is active only after its headers are
//! complete, so the timeout also applies to clients that occupy a connection by sending nothing, sending the headers
//! byte by byte, or sending an incomplete HTTP/2 preface. A connection is also closed if the client stops reading the
//! response.

mod activity;
mod body_timeout;
mod write_timeout;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::header::HOST;
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use activity::Activity;
use body_timeout::BodyTimeout;
use write_timeout::WriteTimeout;

/// The maximum number of open connections. When it is reached, the server accepts no further ones, and clients wait in
/// the listen backlog of the socket.
const MAX_CONNECTIONS: usize = 20_000;
/// The maximum time from the start of a connection until the headers of its first request are complete. A slower
/// connection is closed.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// The maximum time that a connection may be idle after a request. It is longer than the idle timeout of common load
/// balancers, so that a load balancer in front of the server closes idle connections first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// The maximum time that a connection may be idle while the server shuts down. It leaves enough time to send the
/// buffered rest of the last response.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// The maximum size of the request line and headers of a request, in bytes. A request that exceeds it is rejected.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// The maximum number of concurrent requests on one HTTP/2 connection. When it is reached, the client must wait before
/// it sends more. An open event stream counts as one request.
const MAX_CONCURRENT_STREAMS: u32 = 256;
/// The interval between the keep-alive pings that the server sends on an HTTP/2 connection. If a ping is not answered
/// within the same time, the connection is closed.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// The delay after a failed accept. Without it, the server would busy-loop while it has no free file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Accepts connections and serves their requests with `router` until `close` is cancelled. Then it accepts no further
/// connections, and returns after the active requests have completed.
pub async fn serve(listener: TcpListener, router: Router, close: CancellationToken) {
    let connections = TaskTracker::new();
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let builder = builder();
    while let Some(Ok(permit)) = close.run_until_cancelled(Arc::clone(&permits).acquire_owned()).await {
        let Some(accepted) = close.run_until_cancelled(listener.accept()).await else { break };
        match accepted {
            Ok((stream, peer)) => {
                let connection = Connection { builder: builder.clone(), router: router.clone(), peer };
                let close = close.clone();
                connections.spawn(async move {
                    connection.serve(stream, close).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // The server continues, because the error may be temporary or affect only one connection.
                tracing::warn!(%error, "failed to accept an API connection");
                close.run_until_cancelled(tokio::time::sleep(ACCEPT_RETRY_DELAY)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT).max_buf_size(MAX_HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL)
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES as u32);
    builder
}

struct Connection {
    builder: Builder<TokioExecutor>,
    router: Router,
    peer: SocketAddr,
}

impl Connection {
    async fn serve(self, stream: TcpStream, close: CancellationToken) {
        // TCP_NODELAY disables Nagle's algorithm, which would delay small writes such as the events of a stream.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, peer = %self.peer, "failed to set TCP_NODELAY on an API connection");
        }
        let Self { builder, router, peer } = self;
        let activity = Activity::default();
        let service = service_fn(|request: Request<Incoming>| {
            let active_request = activity.begin();
            let mut request = request.map(|body| Body::new(BodyTimeout::new(Body::new(body))));
            request.extensions_mut().insert(ConnectInfo(peer));
            set_host_header(&mut request);
            let mut router = router.clone();
            async move {
                let response = router.call(request).await.unwrap_or_else(|never: Infallible| match never {});
                Ok::<_, Infallible>(response.map(|body| active_request.track_body(body)))
            }
        });
        let mut serving = pin!(builder.serve_connection(TokioIo::new(WriteTimeout::new(stream)), service));
        let result = tokio::select! {
            result = serving.as_mut() => result,
            () = activity.wait_idle(FIRST_REQUEST_TIMEOUT, IDLE_TIMEOUT) => return,
            () = close.cancelled() => {
                serving.as_mut().graceful_shutdown();
                tokio::select! {
                    result = serving => result,
                    () = activity.wait_idle(SHUTDOWN_TIMEOUT, SHUTDOWN_TIMEOUT) => return,
                }
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, %peer, "API connection failed");
        }
    }
}

/// Copies the `:authority` of an HTTP/2 request to the `Host` header, so that handlers find the host in the same header
/// as for HTTP/1.1.
fn set_host_header(request: &mut Request<Body>) {
    if request.headers().contains_key(HOST) {
        return;
    }
    let authority = request.uri().authority().map(|authority| HeaderValue::from_str(authority.as_str()));
    if let Some(Ok(host)) = authority {
        request.headers_mut().insert(HOST, host);
    }
}
