//! CORS: controls which origins' scripts may call the API, and which headers these scripts may send and read.
//!
//! Responses never allow credentials such as cookies: clients authenticate with a key in the `Authorization` header. A
//! preflight response lists the methods that the path supports, and is sent only to allowed origins.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ALLOW,
    CONTENT_LENGTH, CONTENT_TYPE, ORIGIN, VARY,
};
use http::{HeaderValue, Method, StatusCode};

/// The time for which a browser may cache a preflight response, in seconds. After the allowed origins have changed, a
/// browser may still use a cached response for up to ten minutes.
const MAX_AGE_S: HeaderValue = HeaderValue::from_static("600");
/// Request headers that scripts may send, in addition to the CORS-safelisted ones.
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, if-match, if-none-match, last-event-id, range, x-request-id",
);
/// Response headers that scripts may read, in addition to the CORS-safelisted ones.
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static(
    "x-request-id, retry-after, idempotent-replayed, etag, content-range, accept-ranges, allow",
);

/// The origins whose scripts may call the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CorsOrigins {
    #[default]
    None,
    /// Origins, written as in the `Origin` header: scheme, host, and the port unless it is the scheme's default.
    List(Vec<String>),
    Any,
}

impl CorsOrigins {
    /// Returns the value of `Access-Control-Allow-Origin` for a request from `origin`, or `None` if scripts from that
    /// origin may not call the API.
    fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match self {
            Self::None => None,
            Self::List(origins) => {
                origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()).then(|| origin.clone())
            }
            Self::Any => Some(HeaderValue::from_static("*")),
        }
    }
}

/// Middleware that answers preflight requests from allowed origins. It also adds the CORS headers to all other
/// responses to allowed origins, including error responses.
pub(crate) async fn layer(State(origins): State<Arc<CorsOrigins>>, request: Request, next: Next) -> Response {
    let allowed = request.headers().get(ORIGIN).and_then(|origin| origins.allow(origin));
    let is_preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = next.run(request).await;
    if matches!(*origins, CorsOrigins::List(_)) {
        // The response depends on the `Origin` header of the request, so a cache must not reuse it for another origin.
        response.headers_mut().append(VARY, HeaderValue::from_static("origin"));
    }
    let Some(allowed) = allowed else { return response };
    if is_preflight && response.status() == StatusCode::METHOD_NOT_ALLOWED {
        answer_preflight(&mut response);
    }
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
    response
}

/// Turns axum's 405 response to an OPTIONS request into a preflight response. No route handles OPTIONS, so axum
/// responds with 405 and lists the methods of the path in the `Allow` header.
fn answer_preflight(response: &mut Response) {
    *response.status_mut() = StatusCode::NO_CONTENT;
    *response.body_mut() = Body::empty();
    let headers = response.headers_mut();
    headers.remove(CONTENT_TYPE);
    headers.remove(CONTENT_LENGTH);
    if let Some(methods) = headers.remove(ALLOW) {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_S);
}
