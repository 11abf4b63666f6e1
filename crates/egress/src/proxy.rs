//! What a program says to the proxy itself: requests with a whole address, and CONNECT.

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
use crate::egress::Shared;
use crate::fault::Fault;
use crate::forward::{self, WebSocket};
use crate::hop::{self, Hop, Scheme};
use crate::open;
use crate::owner::Owner;
use crate::record::Counted;
use crate::sender::Protocol;
use crate::serving::{self, Handover};
use crate::session::Session;
use crate::target::Target;

/// The most bytes of a user's name; a longer one counts as none.
const MAX_USER_BYTES: usize = 256;

const HINT: &str = "this is a proxy: ask it for a whole address (GET http://example.com/) or for a tunnel (CONNECT \
     example.com:443); programs find it by HTTP_PROXY and HTTPS_PROXY";

/// What a connection becomes after its last answer.
enum Next {
    /// Bytes go through, untouched.
    Tunnel {
        client: OnUpgrade,
        upstream: Counted<TcpStream>,
    },
    /// The host may be sent secrets.
    Open {
        client: OnUpgrade,
        session: Session,
        target: Target,
        addresses: Vec<SocketAddr>,
    },
    WebSocket(WebSocket),
}

/// One connection of a program.
struct Front {
    shared: Arc<Shared>,
    owner: Arc<dyn Owner>,
    /// The way to the host that was asked for last, without a tunnel.
    hop: Mutex<Option<Arc<Hop>>>,
    handover: Handover<Next>,
}

pub(crate) async fn serve<S>(shared: Arc<Shared>, owner: Arc<dyn Owner>, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handover = Handover::new();
    let front = Front { shared, owner, hop: Mutex::default(), handover: handover.clone() };
    let front = Arc::new(front);
    serving::serve(stream, Protocol::Http1, move |request| {
        let front = front.clone();
        async move { front.answer(request).await }
    })
    .await;
    match handover.take() {
        None => {}
        Some(Next::WebSocket(websocket)) => open::go_on(websocket).await,
        Some(Next::Tunnel { client, upstream }) => tunnel(client, upstream).await,
        Some(Next::Open { client, session, target, addresses }) => {
            if let Ok(client) = client.await {
                open::serve(session, target, addresses, TokioIo::new(client)).await;
            }
        }
    }
}

async fn tunnel(client: OnUpgrade, mut upstream: Counted<TcpStream>) {
    let record = upstream.record();
    let Ok(client) = client.await else { return };
    if let Err(error) = copy_bidirectional(&mut TokioIo::new(client), &mut upstream).await {
        record.fail(&error);
    }
}

impl Front {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if request.method() == Method::CONNECT {
            return match self.connect(request).await {
                Ok(()) => Response::new(body::empty()),
                Err(fault) => fault.into_connect_response(),
            };
        }
        match self.forward(request).await {
            Ok(response) => response,
            Err(fault) => fault.into_response(),
        }
    }

    fn session(&self, headers: &HeaderMap) -> Session {
        Session { shared: self.shared.clone(), owner: self.owner.clone(), user: user(headers) }
    }

    async fn connect(&self, mut request: Request<Incoming>) -> Result<(), Fault> {
        let authority = request.uri().authority().ok_or(Fault::Invalid(HINT))?;
        let target = Target::parse(authority.as_str(), None)?;
        let session = self.session(request.headers());
        let policy = session.policy_for(&target).await?;
        let addresses = session.addresses(&target).await?;
        let next = if policy.secrets_for(&target).next().is_some() {
            let client = hyper::upgrade::on(&mut request);
            Next::Open { client, session, target, addresses }
        } else {
            let record = session.allow(&target).await?;
            let connected = hop::connect(&target, &addresses, &record).await;
            let (upstream, _) = connected.inspect_err(|fault| record.fail(fault))?;
            Next::Tunnel { client: hyper::upgrade::on(&mut request), upstream }
        };
        self.handover.set(next);
        Ok(())
    }

    async fn forward(&self, request: Request<Incoming>) -> Result<Response<Body>, Fault> {
        match request.uri().scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(Fault::Invalid("an https address is reached by CONNECT to its host"));
            }
            Some(_) => return Err(Fault::Invalid("only http and https addresses are reached")),
            None => return Err(Fault::Invalid(HINT)),
        }
        let authority = request.uri().authority().ok_or(Fault::Invalid(HINT))?;
        let target = Target::parse(authority.as_str(), Some(Scheme::Http.default_port()))?;
        let hop = self.hop_to(target, self.session(request.headers()));
        let answer = forward::forward(&hop, request).await?;
        if let Some(websocket) = answer.websocket {
            self.handover.set(Next::WebSocket(websocket));
        }
        Ok(answer.response)
    }

    /// The way to this host; that of the request before, if it went there too.
    fn hop_to(&self, target: Target, session: Session) -> Arc<Hop> {
        let mut kept = self.hop.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hop) =
            kept.as_ref().filter(|hop| hop.target == target && hop.session.user == session.user)
        {
            return hop.clone();
        }
        let hop = Arc::new(Hop::new(session, target, Scheme::Http));
        *kept = Some(hop.clone());
        hop
    }
}

/// The name that the program gives itself. It proves nothing.
fn user(headers: &HeaderMap) -> Option<String> {
    let (scheme, rest) = headers.get(PROXY_AUTHORIZATION)?.as_bytes().split_at_checked(6)?;
    let text = STANDARD.decode(rest.trim_ascii()).ok().filter(|_| scheme.eq_ignore_ascii_case(b"basic "))?;
    let text = String::from_utf8(text).ok()?;
    let name = text.split(':').next().unwrap_or_default();
    let is_sane = (1..=MAX_USER_BYTES).contains(&name.len()) && !name.chars().any(char::is_control);
    is_sane.then(|| name.to_owned())
}
