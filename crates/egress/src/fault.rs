//! Why a request is not carried out, as the program inside is told.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use hyper::ext::ReasonPhrase;

use crate::body::{self, Body};
use crate::owner::Unavailable;
use crate::target::{InvalidTarget, Target};

/// Each is one sentence; none names a secret's value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The request is not one that a proxy carries out.
    #[error("{0}")]
    Invalid(&'static str),
    #[error(transparent)]
    Target(#[from] InvalidTarget),
    #[error("refused: {reason}")]
    Denied { reason: String },
    #[error("the server cannot decide about this now; try again in a moment")]
    Unavailable(#[from] Unavailable),
    #[error("{host} was not found")]
    NotFound { host: String },
    #[error("{target} could not be reached: {why}")]
    Unreachable { target: Target, why: String },
    #[error("{target} did not answer within {seconds} s")]
    Slow { target: Target, seconds: u64 },
    #[error("{target} could not be spoken to by TLS, and is not without: {why}")]
    Tls { target: Target, why: String },
    #[error("the connection to {target} broke: {why}")]
    Broken { target: Target, why: String },
    #[error("{target} answered in a form in which secrets could not be masked: {what}")]
    Opaque { target: Target, what: String },
}

impl Fault {
    fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) | Self::Target(_) => StatusCode::BAD_REQUEST,
            Self::Denied { .. } => StatusCode::FORBIDDEN,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Slow { .. } => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(body::text(format!("herm: {self}\n")));
        *response.status_mut() = self.status();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    }

    /// As the answer to CONNECT, whose body few clients show: they do show the words behind the status.
    pub(crate) fn into_connect_response(self) -> Response<Body> {
        let words = ReasonPhrase::try_from(self.to_string().into_bytes());
        let mut response = self.into_response();
        if let Ok(words) = words {
            response.extensions_mut().insert(words);
        }
        response
    }
}
