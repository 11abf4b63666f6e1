//! Every request has an id: in its response, in its error's body, in the log.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use herm_types::id::Id as _;
use herm_types::time::{Rng as _, SystemRng};
use http::{HeaderName, HeaderValue};
use tracing::Instrument as _;

use crate::{error, linger};

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Characters of an inbound id that is kept, at most.
const MAX_INBOUND: usize = 128;

/// Gives the request its id, and an error response its body.
pub(crate) async fn layer(request: Request, next: Next) -> Response {
    let inbound =
        request.headers().get(HEADER).and_then(|value| value.to_str().ok()).filter(|id| is_sane(id));
    let request_id = inbound.map_or_else(new_id, str::to_owned);
    let span =
        tracing::info_span!("request", %request_id, method = %request.method(), path = request.uri().path());
    let response = next.run(linger::request(request)).instrument(span.clone()).await;
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), "answered"));
    let mut response = error::write_body(response, &request_id);
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(HEADER, value);
    }
    response
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
