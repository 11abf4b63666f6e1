//! The request id, which identifies a request in the `X-Request-Id` response header, in error bodies and in the server
//! log.

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use herm_types::id::Id as _;
use herm_types::time::{Rng as _, SystemRng};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tracing::Instrument as _;

use crate::{drain_body, error};

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// The maximum length of a request id that the client chose, in characters. A longer one is replaced by a generated id.
const MAX_CLIENT_ID_CHARS: usize = 128;

/// The id of a request. The middleware [`layer`] stores it in the request's extensions for handlers and other
/// middleware.
#[derive(Clone)]
pub(crate) struct RequestId(pub(crate) String);

/// Assigns an id to the request and adds it to the log lines and the response. Also writes the body of error responses,
/// which contains the id.
pub(crate) async fn layer(mut request: Request, next: Next) -> Response {
    let request_id = client_id(request.headers()).map_or_else(new_id, str::to_owned);
    let span =
        tracing::error_span!("request", %request_id, method = %request.method(), path = request.uri().path());
    request.extensions_mut().insert(RequestId(request_id.clone()));
    let is_head = request.method() == Method::HEAD;
    let response = next.run(drain_body::drain_on_drop(request)).instrument(span.clone()).await;
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), "request completed"));
    let mut response = error::write_body(response, &request_id);
    if is_head {
        response = without_body(response);
    }
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

/// Removes the body from the response to a HEAD request. The headers, including Content-Length, stay the same as in the
/// response to a GET request.
fn without_body(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Response::from_parts(parts, Body::empty())
}

/// Returns the request id that the client chose. Returns `None` if the client sent none, several, or an invalid one.
fn client_id(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(HEADER).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    value.to_str().ok().filter(|id| is_valid(id))
}

fn is_valid(id: &str) -> bool {
    (1..=MAX_CLIENT_ID_CHARS).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn new_id() -> String {
    let mut random = [0u8; 16];
    SystemRng.fill(&mut random);
    herm_types::id::RequestId::from_bits(u128::from_be_bytes(random)).to_string()
}
