//! Connections that are opened, because their host may be sent a secret: the program speaks to this server, which
//! speaks to the host.

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
use crate::fault::Fault;
use crate::forward::{self, WebSocket};
use crate::hop::{Hop, Scheme};
use crate::sender::Protocol;
use crate::serving::{self, Handover};
use crate::session::Session;
use crate::target::Target;
use crate::watched::Watched;
use crate::websocket;

/// How long a program may take to begin with what it speaks, and how long its TLS handshake may take then.
const BEGIN_LIMIT: Duration = Duration::from_secs(10);
/// The first byte of a TLS handshake. Whoever begins with another one speaks plain HTTP, or is not understood.
const TLS_HANDSHAKE: u8 = 22;

/// Serves what a program sends after CONNECT to a host that may be sent a secret.
pub(crate) async fn serve<S>(session: Session, target: Target, addresses: Vec<SocketAddr>, mut stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut first = [0; 1];
    let Ok(Ok(_)) = timeout(BEGIN_LIMIT, stream.read_exact(&mut first)).await else { return };
    let [first] = first;
    let stream = Watched::beginning_with(first, stream);
    if first == TLS_HANDSHAKE {
        let hop = Hop::new(session, target, Scheme::Https).with_checked(addresses);
        serve_tls(hop, stream).await;
    } else {
        let hop = Hop::new(session, target, Scheme::Http).with_checked(addresses);
        serve_requests(Arc::new(hop), stream, Protocol::Http1, None).await;
    }
}

async fn serve_tls<S>(hop: Hop, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let begun = timeout(BEGIN_LIMIT, LazyConfigAcceptor::new(Acceptor::default(), stream)).await;
    let Ok(Ok(begun)) = begun else { return };
    let offered = {
        let hello = begun.client_hello();
        if !names(hello.server_name(), &hop.target) {
            let reason =
                format!("the TLS handshake is with another host than {}, which CONNECT named", hop.target);
            hop.session.deny(&hop.target, reason).await;
            // Without a certificate the program is told by an alert.
            let _ = accept(&hop, begun, &[], None).await;
            return;
        }
        protocols(&hello)
    };
    // What the host speaks is spoken to the program too. A host that cannot be spoken to is reported in an answer,
    // which programs show, and not by breaking the handshake.
    hop.offer(if offered.is_empty() { vec![Protocol::Http1] } else { offered.clone() });
    let (spoken, fault) = match hop.prepare().await {
        Ok(protocol) => (protocol, None),
        Err(fault) => {
            let spoken = if offered == [Protocol::Http2] { Protocol::Http2 } else { Protocol::Http1 };
            (spoken, Some(fault))
        }
    };
    if spoken == Protocol::Http1 {
        hop.offer(vec![Protocol::Http1]);
    }
    let Ok(key) = hop.session.shared.authority.certify(&hop.target) else {
        tracing::warn!(host = hop.target.name(), "failed to make a certificate");
        return;
    };
    let alpn = if offered.is_empty() { &[][..] } else { &[spoken][..] };
    let Ok(stream) = accept(&hop, begun, alpn, Some(key)).await else { return };
    serve_requests(Arc::new(hop), stream, spoken, fault).await;
}

/// Whether a handshake's server name is the host. For an address there is none (RFC 6066, section 3).
fn names(server_name: Option<&str>, target: &Target) -> bool {
    match server_name {
        None => target.address().is_some(),
        Some(name) => Target::of_host(name, target.port()).is_ok_and(|named| named == *target),
    }
}

/// The versions of HTTP that a program offers, the best for it first.
fn protocols(hello: &ClientHello<'_>) -> Vec<Protocol> {
    hello.alpn().into_iter().flatten().filter_map(Protocol::of_alpn).collect()
}

/// One certificate, whoever asks; or none.
#[derive(Debug)]
struct OneKey(Option<Arc<CertifiedKey>>);

impl ResolvesServerCert for OneKey {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}

async fn accept<S>(
    hop: &Hop,
    begun: StartHandshake<S>,
    alpn: &[Protocol],
    key: Option<Arc<CertifiedKey>>,
) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut config = ServerConfig::builder_with_provider(hop.session.shared.provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(OneKey(key)));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.alpn().to_vec()).collect();
    // Each connection has a configuration of its own, so nothing could be resumed.
    config.send_tls13_tickets = 0;
    timeout(BEGIN_LIMIT, begun.into_stream(Arc::new(config))).await?
}

/// `fault` is what the first request is told.
async fn serve_requests<S>(hop: Arc<Hop>, stream: S, protocol: Protocol, fault: Option<Fault>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (handover, first_fault) = (Handover::<WebSocket>::new(), Handover::new());
    if let Some(fault) = fault {
        first_fault.set(fault);
    }
    let answering = handover.clone();
    serving::serve(stream, protocol, move |request| {
        let (hop, handover, fault) = (hop.clone(), answering.clone(), first_fault.take());
        async move { answer(&hop, request, &handover, fault).await }
    })
    .await;
    if let Some(next) = handover.take() {
        go_on(next).await;
    }
}

/// Serves a connection that became one of WebSocket.
pub(crate) async fn go_on(websocket: WebSocket) {
    if let Ok(client) = websocket.client.await {
        let upstream = TokioIo::new(websocket.upstream);
        websocket::splice(TokioIo::new(client), upstream, websocket.rules).await;
    }
}

async fn answer(
    hop: &Hop,
    request: Request<Incoming>,
    handover: &Handover<WebSocket>,
    fault: Option<Fault>,
) -> Response<Body> {
    let answered = match fault {
        Some(fault) => Err(fault),
        None => match check(hop, &request).await {
            Ok(()) => forward::forward(hop, request).await,
            Err(fault) => Err(fault),
        },
    };
    match answered {
        Ok(answer) => {
            if let Some(next) = answer.websocket {
                handover.set(next);
            }
            answer.response
        }
        Err(fault) => fault.into_response(),
    }
}

/// A request goes to the host that the connection is with: a secret is for that one, whatever else it serves.
async fn check(hop: &Hop, request: &Request<Incoming>) -> Result<(), Fault> {
    if request.method() == Method::CONNECT {
        return Err(Fault::Invalid("a tunnel cannot be asked for inside of a tunnel"));
    }
    let fields = request.headers().get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let named: Vec<&str> =
        request.uri().authority().map(http::uri::Authority::as_str).into_iter().chain(fields).collect();
    let is_here =
        |name: &&str| Target::parse(name, Some(hop.scheme.default_port())).as_ref() == Ok(&hop.target);
    if !named.is_empty() && named.iter().all(is_here) && request.headers().get_all(HOST).iter().count() <= 1 {
        return Ok(());
    }
    let reason = format!("the request names another host than {}, which CONNECT named", hop.target);
    Err(hop.session.deny(&hop.target, reason).await)
}
