//! Browsers of other origins: which may call the API, and what their scripts may read.
//!
//! Browsers send API keys and tokens in a header, so no answer ever allows credentials. A preflight is answered with
//! the methods that its path really has, and only where the origin is allowed.

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

use crate::router::Options;

/// How long a browser may keep a preflight's answer: the ten minutes that a change of the setting may take to act.
const MAX_AGE_S: HeaderValue = HeaderValue::from_static("600");
/// What a script may send beside what every request may have.
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, if-match, if-none-match, last-event-id, range, x-request-id",
);
/// What a script may read beside what it always may.
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static(
    "x-request-id, retry-after, idempotent-replayed, etag, content-range, accept-ranges, allow",
);

/// Which origins' scripts may call the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CorsOrigins {
    #[default]
    None,
    /// As browsers write them: scheme, host and, where it is not the scheme's own, port.
    List(Vec<String>),
    Any,
}

impl CorsOrigins {
    /// What an answer to this origin allows; `None`: nothing.
    fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match self {
            Self::None => None,
            Self::List(origins) => {
                origins.iter().any(|known| known.as_bytes() == origin.as_bytes()).then(|| origin.clone())
            }
            Self::Any => Some(HeaderValue::from_static("*")),
        }
    }
}

/// Answers preflights, and lets allowed origins read what is answered, errors included.
pub(crate) async fn layer(State(options): State<Arc<Options>>, request: Request, next: Next) -> Response {
    let allowed = request.headers().get(ORIGIN).and_then(|origin| options.cors.allow(origin));
    let is_preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = next.run(request).await;
    if matches!(options.cors, CorsOrigins::List(_)) {
        // What a cache keeps for one origin is not for another.
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

/// Nothing here has a method OPTIONS: what the router refuses, naming the path's methods, becomes the answer.
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
