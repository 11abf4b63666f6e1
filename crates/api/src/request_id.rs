//! Every request has an id: in its response, in its error's body, in the log.

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use herm_types::id::Id as _;
use herm_types::time::{Rng as _, SystemRng};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tracing::Instrument as _;

use crate::{error, linger};

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Characters of an inbound id that is kept, at most.
const MAX_INBOUND: usize = 128;

/// The id of a request, in its extensions.
#[derive(Clone)]
pub(crate) struct RequestId(pub(crate) String);

/// Gives the request its id, and an error response its body.
pub(crate) async fn layer(mut request: Request, next: Next) -> Response {
    let request_id = inbound(request.headers()).map_or_else(new_id, str::to_owned);
    let span =
        tracing::info_span!("request", %request_id, method = %request.method(), path = request.uri().path());
    request.extensions_mut().insert(RequestId(request_id.clone()));
    let is_head = request.method() == Method::HEAD;
    let response = next.run(linger::request(request)).instrument(span.clone()).await;
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), "answered"));
    let mut response = error::write_body(response, &request_id);
    if is_head {
        response = without_body(response);
    }
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

/// What a HEAD is answered: the headers of a GET, the body's length among them.
fn without_body(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Response::from_parts(parts, Body::empty())
}

/// The client's own id, if it gave one that can be kept. Of several nobody knows which is meant.
fn inbound(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(HEADER).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    value.to_str().ok().filter(|id| is_sane(id))
}

fn is_sane(id: &str) -> bool {
    (1..=MAX_INBOUND).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn new_id() -> String {
    let mut random = [0u8; 16];
    SystemRng.fill(&mut random);
    herm_types::id::RequestId::from_bits(u128::from_be_bytes(random)).to_string()
}
