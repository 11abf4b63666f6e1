//! Connections: accepted, kept while they are used, ended gracefully.
//!
//! Whoever only holds a connection, by sending nothing, a head byte by byte or a preface that never ends, has no request
//! under way; and a connection without one is dropped after a while. Whoever does not read what is sent is dropped too.

mod activity;
mod arrival;
mod stall;

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
use arrival::Arrival;
use stall::Stall;

/// Connections that are open at once; who comes later waits to be let in.
const MAX_CONNECTIONS: usize = 20_000;
/// How long a connection may take to send the whole head of its first request.
const FIRST_REQUEST_LIMIT: Duration = Duration::from_secs(20);
/// How long a connection may go without a request after that; longer than load balancers keep theirs idle.
const IDLE_LIMIT: Duration = Duration::from_secs(75);
/// The same once the server stops: enough to flush an answer.
const CLOSING_LIMIT: Duration = Duration::from_secs(1);
/// The most bytes of a request's line and headers.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Requests that one HTTP/2 connection has under way at most; each may be a stream of events.
const MAX_CONCURRENT_STREAMS: u32 = 256;
/// Between two pings of a silent HTTP/2 connection, and how long its answer may take.
const PING: Duration = Duration::from_secs(20);
/// After an accept that failed for want of something, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the router until `close` is cancelled, and then what is under way until it ends.
pub async fn serve(listener: TcpListener, router: Router, close: CancellationToken) {
    let connections = TaskTracker::new();
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let builder = builder();
    while let Some(Ok(place)) = close.run_until_cancelled(Arc::clone(&room).acquire_owned()).await {
        let Some(accepted) = close.run_until_cancelled(listener.accept()).await else { break };
        match accepted {
            Ok((stream, peer)) => {
                let connection = Connection { builder: builder.clone(), router: router.clone(), peer };
                let close = close.clone();
                connections.spawn(async move {
                    connection.serve(stream, close).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Of one connection, or of all: in either case the next one may do.
                tracing::warn!(%error, "failed to accept a connection");
                close.run_until_cancelled(tokio::time::sleep(ACCEPT_PAUSE)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE_LIMIT).max_buf_size(MAX_HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
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
        // Events are small and wanted at once.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "failed to set TCP_NODELAY");
        }
        let Self { builder, router, peer } = self;
        let activity = Activity::default();
        let service = service_fn(|request: Request<Incoming>| {
            let under_way = activity.begin();
            let mut request = request.map(|body| Body::new(Arrival::new(Body::new(body))));
            request.extensions_mut().insert(ConnectInfo(peer));
            name_host(&mut request);
            let mut router = router.clone();
            async move {
                let response = router.call(request).await.unwrap_or_else(|never: Infallible| match never {});
                Ok::<_, Infallible>(response.map(|body| under_way.until_sent(body)))
            }
        });
        let mut serving = pin!(builder.serve_connection(TokioIo::new(Stall::new(stream)), service));
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = activity.none_for(FIRST_REQUEST_LIMIT, IDLE_LIMIT) => return,
            () = close.cancelled() => {
                serving.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = serving => ended,
                    () = activity.none_for(CLOSING_LIMIT, CLOSING_LIMIT) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection broke");
        }
    }
}

/// HTTP/2 says the host beside the path; here it stands where HTTP/1.1 has it, for whoever needs it.
fn name_host(request: &mut Request<Body>) {
    if request.headers().contains_key(HOST) {
        return;
    }
    let authority = request.uri().authority().map(|authority| HeaderValue::from_str(authority.as_str()));
    if let Some(Ok(host)) = authority {
        request.headers_mut().insert(HOST, host);
    }
}
