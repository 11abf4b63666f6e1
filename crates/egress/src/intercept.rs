//! Intercepts connections: if a host may receive a secret, the proxy terminates the program's connection and makes
//! its own connection to the host.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use crate::body::Body;
use crate::error::ProxyError;
use crate::forward::{self, WebSocketUpgrade};
use crate::http_server::{self, Handover};
use crate::monitored_stream::MonitoredStream;
use crate::sender::Protocol;
use crate::session::Session;
use crate::target::Target;
use crate::upstream::{Scheme, Upstream};
use crate::websocket;

/// The maximum time to wait for the first byte from the program, and the maximum duration of each phase of the TLS
/// handshake with the program. Beyond either limit, the connection is closed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The first byte of a TLS handshake record. Connections with any other first byte are served as plain HTTP.
const TLS_HANDSHAKE: u8 = 22;

/// Serves a connection on which the program has sent a CONNECT request for a host that may receive a secret. After that
/// request, the program sends TLS or plain HTTP.
pub(crate) async fn serve<S>(session: Session, target: Target, addresses: Vec<SocketAddr>, mut stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut first = [0; 1];
    let Ok(Ok(_)) = timeout(HANDSHAKE_TIMEOUT, stream.read_exact(&mut first)).await else { return };
    let [first] = first;
    let stream = MonitoredStream::with_first_byte(first, stream);
    if first == TLS_HANDSHAKE {
        let upstream = Upstream::new(session, target, Scheme::Https).with_checked_addresses(addresses);
        serve_tls(upstream, stream).await;
    } else {
        let upstream = Upstream::new(session, target, Scheme::Http).with_checked_addresses(addresses);
        serve_requests(Arc::new(upstream), stream, Protocol::Http1, None).await;
    }
}

async fn serve_tls<S>(upstream: Upstream, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = timeout(HANDSHAKE_TIMEOUT, LazyConfigAcceptor::new(Acceptor::default(), stream)).await;
    let Ok(Ok(handshake)) = handshake else { return };
    let offered = {
        let hello = handshake.client_hello();
        if !matches_target(hello.server_name(), &upstream.target) {
            let reason = format!(
                "the server name in the TLS handshake differs from {}, the host in the CONNECT request",
                upstream.target
            );
            upstream.session.deny(&upstream.target, reason).await;
            // Continue the handshake without a certificate. It then fails with a TLS alert, which the program reports
            // as an error.
            let _ = accept(&upstream, handshake, &[], None).await;
            return;
        }
        protocols(&hello)
    };
    // Connect to the destination host before completing the program's handshake, so that the program gets the HTTP
    // version that the host has chosen. If this connection fails, complete the handshake nevertheless and send the
    // error as an HTTP response: programs show the text of a response.
    upstream.offer(if offered.is_empty() { vec![Protocol::Http1] } else { offered.clone() });
    let (protocol, error) = match upstream.connect_early().await {
        Ok(protocol) => (protocol, None),
        Err(error) => {
            let protocol = if offered == [Protocol::Http2] { Protocol::Http2 } else { Protocol::Http1 };
            (protocol, Some(error))
        }
    };
    if protocol == Protocol::Http1 {
        upstream.offer(vec![Protocol::Http1]);
    }
    let key = match upstream.session.state.authority.certify(&upstream.target) {
        Ok(key) => key,
        Err(error) => {
            tracing::warn!(
                host = upstream.target.name(),
                error = &error as &dyn std::error::Error,
                "failed to issue a certificate for an intercepted host; closed the connection"
            );
            return;
        }
    };
    let alpn = if offered.is_empty() { &[][..] } else { &[protocol][..] };
    let Ok(stream) = accept(&upstream, handshake, alpn, Some(key)).await else { return };
    serve_requests(Arc::new(upstream), stream, protocol, error).await;
}

/// Returns true if the server name in a program's TLS handshake is the target's host. It may be missing only if the
/// target is an IP address, because programs then send no server name (RFC 6066, section 3).
fn matches_target(server_name: Option<&str>, target: &Target) -> bool {
    match server_name {
        None => target.address().is_some(),
        Some(name) => Target::from_host(name, target.port()).is_ok_and(|names| names == *target),
    }
}

/// Returns the HTTP versions that the program offers in its TLS handshake, in the program's order of preference.
fn protocols(hello: &ClientHello<'_>) -> Vec<Protocol> {
    hello.alpn().into_iter().flatten().filter_map(Protocol::from_alpn).collect()
}

/// Presents the same certificate in every TLS handshake. With `None`, presents no certificate, so that handshakes fail.
#[derive(Debug)]
struct FixedCertificate(Option<Arc<CertifiedKey>>);

impl ResolvesServerCert for FixedCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}

async fn accept<S>(
    upstream: &Upstream,
    handshake: StartHandshake<S>,
    alpn: &[Protocol],
    key: Option<Arc<CertifiedKey>>,
) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut config = ServerConfig::builder_with_provider(upstream.session.state.provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(FixedCertificate(key)));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.alpn().to_vec()).collect();
    // Each connection has its own TLS configuration, so sessions cannot be resumed and tickets would be useless.
    config.send_tls13_tickets = 0;
    timeout(HANDSHAKE_TIMEOUT, handshake.into_stream(Arc::new(config))).await?
}

/// Serves the requests of an intercepted connection. If `error` is set, the first request is answered with it.
async fn serve_requests<S>(upstream: Arc<Upstream>, stream: S, protocol: Protocol, error: Option<ProxyError>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (handover, first_error) = (Handover::<WebSocketUpgrade>::new(), Handover::new());
    if let Some(error) = error {
        first_error.set(error);
    }
    let request_handover = handover.clone();
    http_server::serve(stream, protocol, move |request| {
        let (upstream, handover, error) = (upstream.clone(), request_handover.clone(), first_error.take());
        async move { handle(&upstream, request, &handover, error).await }
    })
    .await;
    if let Some(next) = handover.take() {
        serve_websocket(next).await;
    }
}

/// Forwards data between the program and the destination host after an upgrade to WebSocket.
pub(crate) async fn serve_websocket(websocket: WebSocketUpgrade) {
    if let Ok(client) = websocket.client.await {
        let upstream = TokioIo::new(websocket.upstream);
        websocket::splice(TokioIo::new(client), upstream, websocket.rules).await;
    }
}

async fn handle(
    upstream: &Upstream,
    request: Request<Incoming>,
    handover: &Handover<WebSocketUpgrade>,
    error: Option<ProxyError>,
) -> Response<Body> {
    let result = match error {
        Some(error) => Err(error),
        None => match check_host(upstream, &request).await {
            Ok(()) => forward::forward(upstream, request).await,
            Err(error) => Err(error),
        },
    };
    match result {
        Ok(forwarded) => {
            if let Some(next) = forwarded.websocket {
                handover.set(next);
            }
            forwarded.response
        }
        Err(error) => error.into_response(),
    }
}

/// Checks that a request is for the host that the CONNECT request named. Only that host may receive the secrets,
/// even if the same web server also serves other host names.
async fn check_host(upstream: &Upstream, request: &Request<Incoming>) -> Result<(), ProxyError> {
    if request.method() == Method::CONNECT {
        return Err(ProxyError::Invalid("CONNECT is not supported inside a tunnel"));
    }
    let fields = request.headers().get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let names: Vec<&str> =
        request.uri().authority().map(http::uri::Authority::as_str).into_iter().chain(fields).collect();
    let is_target = |name: &&str| {
        Target::parse(name, Some(upstream.scheme.default_port())).as_ref() == Ok(&upstream.target)
    };
    if !names.is_empty() && names.iter().all(is_target) && request.headers().get_all(HOST).iter().count() <= 1
    {
        return Ok(());
    }
    let reason =
        format!("the host in the request differs from {}, the host in the CONNECT request", upstream.target);
    Err(upstream.session.deny(&upstream.target, reason).await)
}
