//! The errors that the proxy returns to programs in a sandbox as HTTP responses.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use hyper::ext::ReasonPhrase;

use crate::body::{self, Body};
use crate::owner::Unavailable;
use crate::target::{InvalidTarget, Target};

/// An error that the egress proxy returns, as an HTTP response, to the program in the sandbox. Each message is one
/// sentence and contains no secret value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    /// The request is malformed, or the proxy does not support it.
    #[error("{0}")]
    Invalid(&'static str),
    #[error(transparent)]
    Target(#[from] InvalidTarget),
    #[error("refused: {reason}")]
    Denied { reason: String },
    #[error("the server cannot check the egress policy of this sandbox now; try again in a moment")]
    Unavailable(#[from] Unavailable),
    #[error("the host name {host} could not be resolved")]
    NotFound { host: String },
    #[error("failed to connect to {target}: {cause}")]
    Unreachable { target: Target, cause: String },
    #[error("connecting to {target} timed out after {seconds} seconds")]
    Timeout { target: Target, seconds: u64 },
    #[error("TLS handshake with {target} failed: {cause}")]
    Tls { target: Target, cause: String },
    #[error("the connection to {target} failed: {cause}")]
    ConnectionFailed { target: Target, cause: String },
    #[error("secrets cannot be masked in the response from {target}: {reason}")]
    Unmaskable { target: Target, reason: String },
}

impl ProxyError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) | Self::Target(_) => StatusCode::BAD_REQUEST,
            Self::Denied { .. } => StatusCode::FORBIDDEN,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(body::text(format!("herm: {self}\n")));
        *response.status_mut() = self.status();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    }

    /// Returns the response to a CONNECT request. The message is both the body and the reason phrase, because few
    /// clients show the body of such a response, but most show the reason phrase.
    pub(crate) fn into_connect_response(self) -> Response<Body> {
        let reason = ReasonPhrase::try_from(self.to_string().into_bytes());
        let mut response = self.into_response();
        if let Ok(reason) = reason {
            response.extensions_mut().insert(reason);
        }
        response
    }
}
