//! Forwards an HTTP request from a program in a sandbox to the destination host, and returns the response.

use std::sync::{Arc, PoisonError};

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, HeaderName, HeaderValue, IF_RANGE,
    RANGE, SEC_WEBSOCKET_EXTENSIONS,
};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};

use crate::body::{self, Body};
use crate::decode::Decoder;
use crate::error::ProxyError;
use crate::rewrite::Rules;
use crate::upstream::{Connection, Peer, Upstream};
use crate::values::{self, SecretValue};
use crate::{hop_by_hop, mask, sender};

/// The header fields that contain a digest of the body. They are removed from a response in which secret values are
/// masked, because the digest no longer matches the body.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// The response from the destination host, and the upgrade to WebSocket if the host accepted one.
pub(crate) struct ForwardedResponse {
    pub(crate) response: Response<Body>,
    pub(crate) websocket: Option<WebSocketUpgrade>,
}

/// A WebSocket upgrade: the program's connection (`client`) and the connection to the destination host (`upstream`),
/// which both switch to WebSocket.
pub(crate) struct WebSocketUpgrade {
    pub(crate) client: OnUpgrade,
    pub(crate) upstream: Upgraded,
    pub(crate) rules: Arc<Rules>,
}

/// Forwards a request to its destination host. The policy and the secrets are read again for each request.
pub(crate) async fn forward(
    upstream: &Upstream,
    mut request: Request<Incoming>,
) -> Result<ForwardedResponse, ProxyError> {
    let policy = upstream.session.policy_for(&upstream.target).await?;
    let secrets = upstream.session.values(&policy, &upstream.target).await?;
    let client =
        hop_by_hop::is_websocket_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
    let has_no_body = request.method() == Method::HEAD;
    let (response, peer) = exchange(upstream, request, &secrets).await?;
    let rules = Arc::new(peer.sent_values.lock().unwrap_or_else(PoisonError::into_inner).rules());
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return upgrade_to_websocket(upstream, response, client, rules).await;
    }
    let response = prepare_response(upstream, response, rules, has_no_body)?;
    Ok(ForwardedResponse { response, websocket: None })
}

/// Sends the request to the destination host over an idle or new connection. Returns the response and the shared state
/// of that connection.
async fn exchange(
    upstream: &Upstream,
    request: Request<Incoming>,
    secrets: &[SecretValue],
) -> Result<(Response<Incoming>, Arc<Peer>), ProxyError> {
    let mut connection = upstream.acquire().await?;
    // Keep a reference to the connection's record. If the request fails, the failure can then be recorded even if the
    // connection has already ended.
    let record = connection.peer.record();
    let (head, body) = request.into_parts();
    let request = prepare_request(upstream, head, body::incoming(body), secrets, &connection).await?;
    let response = connection.sender.send(request).await.map_err(|error| {
        if let Some(record) = record {
            record.fail(&error);
        }
        upstream.connection_failed(&error)
    })?;
    let peer = connection.peer.clone();
    upstream.release(connection).await;
    Ok((response, peer))
}

/// Remembers the secret values that may be sent on this connection, so that they are masked in the responses.
fn remember_values(peer: &Peer, secrets: &[SecretValue]) {
    let mut sent_values = peer.sent_values.lock().unwrap_or_else(PoisonError::into_inner);
    for secret in secrets {
        sent_values.add(&secret.placeholder, &secret.value);
    }
}

/// Builds the upstream request to the destination host: makes the URI absolute, removes hop-by-hop header fields and
/// injects secrets.
async fn prepare_request(
    upstream: &Upstream,
    mut head: Parts,
    body: Body,
    secrets: &[SecretValue],
    connection: &Connection,
) -> Result<Request<Body>, ProxyError> {
    let authority = upstream.target.authority(upstream.scheme.default_port());
    head.uri = sender::absolute_uri(upstream.scheme, &authority, &head.uri)
        .map_err(|_| ProxyError::Invalid("the request URI is invalid"))?;
    head.extensions.clear();
    hop_by_hop::strip_request(&mut head.headers);
    remember_values(&connection.peer, secrets);
    let is_masked = !connection.peer.sent_values.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
    if is_masked {
        require_maskable_response(&mut head.headers);
    }
    let secrets = connection.peer.sendable(secrets);
    if let Err(reason) = values::inject_into_head(&mut head, secrets) {
        return Err(upstream.session.deny(&upstream.target, reason).await);
    }
    let body = values::inject_into_body(&mut head, body, secrets).await?;
    // `Content-Length` must match the size of the rewritten body.
    match body::exact_bytes(&body) {
        Some(bytes) if bytes > 0 || head.headers.contains_key(CONTENT_LENGTH) => {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
        }
        _ => {
            head.headers.remove(CONTENT_LENGTH);
        }
    }
    Ok(Request::from_parts(head, body))
}

/// Changes the request's header fields so that the destination host returns a response that can be masked:
/// uncompressed, complete, and without WebSocket extensions. A partial (range) response could begin or end inside a
/// secret value, and that part of the value would not be recognized.
fn require_maskable_response(headers: &mut HeaderMap) {
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.remove(RANGE);
    headers.remove(IF_RANGE);
    headers.remove(SEC_WEBSOCKET_EXTENSIONS);
}

/// Builds the response to the program in the sandbox: removes hop-by-hop header fields and masks secret values.
fn prepare_response(
    upstream: &Upstream,
    response: Response<Incoming>,
    rules: Arc<Rules>,
    has_no_body: bool,
) -> Result<Response<Body>, ProxyError> {
    let (mut head, body) = response.into_parts();
    // The response extensions contain the destination host's reason phrase. It must not be forwarded, because it would
    // not be masked.
    head.extensions.clear();
    hop_by_hop::strip_response(&mut head.headers, false);
    mask::headers(&rules, &mut head.headers);
    if has_no_body || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(Response::from_parts(head, body::empty()));
    }
    let body = body::incoming(body);
    if rules.is_empty() {
        return Ok(Response::from_parts(head, body));
    }
    let decoder = decoder_for(upstream, &head.headers)?;
    for name in DIGESTS.iter().chain(&[CONTENT_LENGTH, CONTENT_ENCODING, ACCEPT_RANGES]) {
        head.headers.remove(name);
    }
    Ok(Response::from_parts(head, body::rewritten(body, decoder, rules)))
}

fn decoder_for(upstream: &Upstream, headers: &HeaderMap) -> Result<Option<Decoder>, ProxyError> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    let unmaskable = |reason: String| ProxyError::Unmaskable { target: upstream.target.clone(), reason };
    let Some(first) = encodings.next() else { return Ok(None) };
    let name = String::from_utf8_lossy(first.as_bytes());
    if encodings.next().is_some() {
        return Err(unmaskable("it has more than one `Content-Encoding` header".to_owned()));
    }
    if name.trim().is_empty() || name.trim().eq_ignore_ascii_case("identity") {
        return Ok(None);
    }
    // The error message omits the value of the header, because the host could have put a secret into it.
    let unsupported =
        || unmaskable("its `Content-Encoding` is not `gzip`, `deflate`, `br` or `zstd`".to_owned());
    Decoder::for_encoding(&name).map(Some).ok_or_else(unsupported)
}

/// Completes the upgrade to WebSocket after the destination host has responded with 101.
async fn upgrade_to_websocket(
    upstream: &Upstream,
    mut response: Response<Incoming>,
    client: Option<OnUpgrade>,
    rules: Arc<Rules>,
) -> Result<ForwardedResponse, ProxyError> {
    let client = client.filter(|_| hop_by_hop::is_websocket_upgrade(response.headers()));
    let unexpected_protocol = || ProxyError::Unmaskable {
        target: upstream.target.clone(),
        reason: "the host switched to a protocol or extension that was not requested".to_owned(),
    };
    let client = client.ok_or_else(unexpected_protocol)?;
    if !rules.is_empty() && response.headers().contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return Err(unexpected_protocol());
    }
    let upgraded =
        hyper::upgrade::on(&mut response).await.map_err(|error| upstream.connection_failed(&error))?;
    let mut head = response.into_parts().0;
    head.extensions.clear();
    hop_by_hop::strip_response(&mut head.headers, true);
    mask::headers(&rules, &mut head.headers);
    let response = Response::from_parts(head, body::empty());
    Ok(ForwardedResponse {
        response,
        websocket: Some(WebSocketUpgrade { client, upstream: upgraded, rules }),
    })
}
