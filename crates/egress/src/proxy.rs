//! Handles the requests that a program sends to the proxy itself: requests with an absolute URI, and CONNECT.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::PROXY_AUTHORIZATION;
use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::TcpStream;

use crate::body::{self, Body};
use crate::egress::ProxyState;
use crate::error::ProxyError;
use crate::forward::{self, WebSocketUpgrade};
use crate::http_server::{self, Handover};
use crate::intercept;
use crate::owner::Owner;
use crate::record::CountedStream;
use crate::sender::Protocol;
use crate::session::Session;
use crate::target::Target;
use crate::upstream::{self, Scheme, Upstream};

/// The maximum length of the user name in proxy credentials, in bytes. A longer name is ignored.
const MAX_USER_BYTES: usize = 256;

const USAGE_HINT: &str = "this is a proxy: send it an absolute URI (GET http://example.com/) or request a tunnel (CONNECT \
     example.com:443); most programs do so if HTTP_PROXY and HTTPS_PROXY are set";

/// The protocol that a program's connection switches to after the last HTTP response.
enum Upgrade {
    /// A tunnel, in which the proxy forwards all bytes unchanged.
    Tunnel {
        client: OnUpgrade,
        upstream: CountedStream<TcpStream>,
    },
    /// The host may receive secrets, so the proxy intercepts the connection and handles each request on it.
    Intercept {
        client: OnUpgrade,
        session: Session,
        target: Target,
        addresses: Vec<SocketAddr>,
    },
    WebSocket(WebSocketUpgrade),
}

/// A connection from a program in a sandbox to the proxy.
struct ProxyConnection {
    state: Arc<ProxyState>,
    owner: Arc<dyn Owner>,
    /// The destination host of the last request that did not use CONNECT, with the connection to that host. The next
    /// request to the same host can reuse the connection.
    upstream: Mutex<Option<Arc<Upstream>>>,
    handover: Handover<Upgrade>,
}

pub(crate) async fn serve<S>(state: Arc<ProxyState>, owner: Arc<dyn Owner>, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handover = Handover::new();
    let connection = ProxyConnection { state, owner, upstream: Mutex::default(), handover: handover.clone() };
    let connection = Arc::new(connection);
    http_server::serve(stream, Protocol::Http1, move |request| {
        let connection = connection.clone();
        async move { connection.handle(request).await }
    })
    .await;
    match handover.take() {
        None => {}
        Some(Upgrade::WebSocket(websocket)) => intercept::serve_websocket(websocket).await,
        Some(Upgrade::Tunnel { client, upstream }) => tunnel(client, upstream).await,
        Some(Upgrade::Intercept { client, session, target, addresses }) => {
            if let Ok(client) = client.await {
                intercept::serve(session, target, addresses, TokioIo::new(client)).await;
            }
        }
    }
}

async fn tunnel(client: OnUpgrade, mut upstream: CountedStream<TcpStream>) {
    let record = upstream.record();
    let Ok(client) = client.await else { return };
    if let Err(error) = copy_bidirectional(&mut TokioIo::new(client), &mut upstream).await {
        record.fail(&error);
    }
}

impl ProxyConnection {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        if request.method() == Method::CONNECT {
            return match self.connect(request).await {
                Ok(()) => Response::new(body::empty()),
                Err(error) => error.into_connect_response(),
            };
        }
        match self.forward(request).await {
            Ok(response) => response,
            Err(error) => error.into_response(),
        }
    }

    fn session(&self, headers: &HeaderMap) -> Session {
        Session { state: self.state.clone(), owner: self.owner.clone(), user: user(headers) }
    }

    async fn connect(&self, mut request: Request<Incoming>) -> Result<(), ProxyError> {
        let authority = request.uri().authority().ok_or(ProxyError::Invalid(USAGE_HINT))?;
        let target = Target::parse(authority.as_str(), None)?;
        let session = self.session(request.headers());
        let policy = session.policy_for(&target).await?;
        let addresses = session.resolve_allowed(&target).await?;
        let next = if policy.secrets_for(&target).next().is_some() {
            let client = hyper::upgrade::on(&mut request);
            Upgrade::Intercept { client, session, target, addresses }
        } else {
            let record = session.record_allowed(&target).await?;
            let connected = upstream::connect(&target, &addresses, &record).await;
            let (upstream, _) = connected.inspect_err(|error| record.fail(error))?;
            Upgrade::Tunnel { client: hyper::upgrade::on(&mut request), upstream }
        };
        self.handover.set(next);
        Ok(())
    }

    async fn forward(&self, request: Request<Incoming>) -> Result<Response<Body>, ProxyError> {
        match request.uri().scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(ProxyError::Invalid(
                    "this proxy does not forward https URLs directly; use CONNECT to open a tunnel to the host",
                ));
            }
            Some(_) => return Err(ProxyError::Invalid("only http and https URLs are supported")),
            None => return Err(ProxyError::Invalid(USAGE_HINT)),
        }
        let authority = request.uri().authority().ok_or(ProxyError::Invalid(USAGE_HINT))?;
        let target = Target::parse(authority.as_str(), Some(Scheme::Http.default_port()))?;
        let upstream = self.upstream_to(target, self.session(request.headers()));
        let forwarded = forward::forward(&upstream, request).await?;
        if let Some(websocket) = forwarded.websocket {
            self.handover.set(Upgrade::WebSocket(websocket));
        }
        Ok(forwarded.response)
    }

    /// Returns the upstream for this host, which holds the connections to the host. The previous request's upstream is
    /// reused if both the host and the user name are the same.
    fn upstream_to(&self, target: Target, session: Session) -> Arc<Upstream> {
        let mut cached = self.upstream.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upstream) = cached
            .as_ref()
            .filter(|upstream| upstream.target == target && upstream.session.user == session.user)
        {
            return upstream.clone();
        }
        let upstream = Arc::new(Upstream::new(session, target, Scheme::Http));
        *cached = Some(upstream.clone());
        upstream
    }
}

/// Returns the user name in the proxy credentials. The program chooses it, so it must not be trusted.
fn user(headers: &HeaderMap) -> Option<String> {
    let (scheme, rest) = headers.get(PROXY_AUTHORIZATION)?.as_bytes().split_at_checked(6)?;
    let text = STANDARD.decode(rest.trim_ascii()).ok().filter(|_| scheme.eq_ignore_ascii_case(b"basic "))?;
    let text = String::from_utf8(text).ok()?;
    let name = text.split(':').next().unwrap_or_default();
    let is_valid = (1..=MAX_USER_BYTES).contains(&name.len()) && !name.chars().any(char::is_control);
    is_valid.then(|| name.to_owned())
}
