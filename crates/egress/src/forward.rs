//! One request carried to its host, and the answer back.

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
use crate::fault::Fault;
use crate::hop::{Hop, Line, Peer};
use crate::rewrite::Rules;
use crate::values::{self, Given};
use crate::{fields, mask, sender};

/// What a masked reply no longer is: a digest of it would be wrong.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// An answer, and what goes on over the connection after it.
pub(crate) struct Answer {
    pub(crate) response: Response<Body>,
    pub(crate) websocket: Option<WebSocket>,
}

/// Both ends of a connection that becomes one of WebSocket.
pub(crate) struct WebSocket {
    pub(crate) client: OnUpgrade,
    pub(crate) upstream: Upgraded,
    pub(crate) rules: Arc<Rules>,
}

/// Whether the host may be reached, and what it may be sent, is asked anew for each request.
pub(crate) async fn forward(hop: &Hop, mut request: Request<Incoming>) -> Result<Answer, Fault> {
    let policy = hop.session.policy_for(&hop.target).await?;
    let given = hop.session.values(&policy, &hop.target).await?;
    let client = fields::ask_for_websocket(request.headers()).then(|| hyper::upgrade::on(&mut request));
    let has_no_body = request.method() == Method::HEAD;
    let (response, peer) = exchange(hop, request, &given).await?;
    let rules = Arc::new(peer.known.lock().unwrap_or_else(PoisonError::into_inner).rules());
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switch(hop, response, client, rules).await;
    }
    let response = reply(hop, response, rules, has_no_body)?;
    Ok(Answer { response, websocket: None })
}

/// Sends the request over a connection that is there, or a new one.
async fn exchange(
    hop: &Hop,
    request: Request<Incoming>,
    given: &[Given],
) -> Result<(Response<Incoming>, Arc<Peer>), Fault> {
    let mut line = hop.line().await?;
    // Held so that it can still be said why the request was not answered.
    let record = line.peer.record();
    let (head, body) = request.into_parts();
    let request = prepare(hop, head, body::incoming(body), given, &line).await?;
    let response = line.sender.send(request).await.map_err(|error| {
        if let Some(record) = record {
            record.fail(&error);
        }
        hop.broken(&error)
    })?;
    let peer = line.peer.clone();
    hop.keep(line).await;
    Ok((response, peer))
}

fn learn(peer: &Peer, given: &[Given]) {
    let mut known = peer.known.lock().unwrap_or_else(PoisonError::into_inner);
    for one in given {
        known.add(&one.placeholder, &one.value);
    }
}

/// The request as the host gets it.
async fn prepare(
    hop: &Hop,
    mut head: Parts,
    body: Body,
    given: &[Given],
    line: &Line,
) -> Result<Request<Body>, Fault> {
    let authority = hop.target.authority(hop.scheme.default_port());
    head.uri = sender::address(hop.scheme, &authority, &head.uri)
        .map_err(|_| Fault::Invalid("the address of the request cannot be read"))?;
    head.extensions.clear();
    fields::clean_request(&mut head.headers);
    learn(&line.peer, given);
    let is_masked = !line.peer.known.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
    if is_masked {
        ask_for_what_can_be_masked(&mut head.headers);
    }
    let given = line.peer.may_be_sent(given);
    if let Err(reason) = values::put_into_head(&mut head, given) {
        return Err(hop.session.deny(&hop.target, reason).await);
    }
    let body = values::put_into_body(&mut head, body, given).await?;
    // The length is that of the body as it is sent, whatever the program said of it.
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

/// A reply that is compressed would have to be opened, and one in parts could cut a value in two.
fn ask_for_what_can_be_masked(headers: &mut HeaderMap) {
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.remove(RANGE);
    headers.remove(IF_RANGE);
    headers.remove(SEC_WEBSOCKET_EXTENSIONS);
}

/// The answer as the program gets it.
fn reply(
    hop: &Hop,
    response: Response<Incoming>,
    rules: Arc<Rules>,
    has_no_body: bool,
) -> Result<Response<Body>, Fault> {
    let (mut head, body) = response.into_parts();
    // The host's own words behind the status are among them.
    head.extensions.clear();
    fields::clean_response(&mut head.headers, false);
    mask::headers(&rules, &mut head.headers);
    if has_no_body || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(Response::from_parts(head, body::empty()));
    }
    let body = body::incoming(body);
    if rules.is_empty() {
        return Ok(Response::from_parts(head, body));
    }
    let decoder = decoder_for(hop, &head.headers)?;
    for name in DIGESTS.iter().chain(&[CONTENT_LENGTH, CONTENT_ENCODING, ACCEPT_RANGES]) {
        head.headers.remove(name);
    }
    Ok(Response::from_parts(head, body::rewritten(body, decoder, rules)))
}

fn decoder_for(hop: &Hop, headers: &HeaderMap) -> Result<Option<Decoder>, Fault> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    let opaque = |what: String| Fault::Opaque { target: hop.target.clone(), what };
    let Some(first) = encodings.next() else { return Ok(None) };
    let name = String::from_utf8_lossy(first.as_bytes());
    if encodings.next().is_some() {
        return Err(opaque("it is encoded twice".to_owned()));
    }
    if name.trim().is_empty() || name.trim().eq_ignore_ascii_case("identity") {
        return Ok(None);
    }
    // The name is the host's text, and comes from where values are.
    let unknown = || opaque("its Content-Encoding is none of gzip, deflate, br and zstd".to_owned());
    Decoder::of(&name).map(Some).ok_or_else(unknown)
}

/// Both sides agreed to speak WebSocket.
async fn switch(
    hop: &Hop,
    mut response: Response<Incoming>,
    client: Option<OnUpgrade>,
    rules: Arc<Rules>,
) -> Result<Answer, Fault> {
    let client = client.filter(|_| fields::ask_for_websocket(response.headers()));
    let unasked = || Fault::Opaque {
        target: hop.target.clone(),
        what: "it speaks another protocol than it was asked for".to_owned(),
    };
    let client = client.ok_or_else(unasked)?;
    if !rules.is_empty() && response.headers().contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return Err(unasked());
    }
    let upstream = hyper::upgrade::on(&mut response).await.map_err(|error| hop.broken(&error))?;
    let mut head = response.into_parts().0;
    head.extensions.clear();
    fields::clean_response(&mut head.headers, true);
    mask::headers(&rules, &mut head.headers);
    let response = Response::from_parts(head, body::empty());
    Ok(Answer { response, websocket: Some(WebSocket { client, upstream, rules }) })
}
