//! A request's JSON body.

use std::error::Error as _;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _, to_bytes};
use axum::extract::{FromRequest, Request};
use herm_types::{Error, ErrorCode};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::json;
use crate::error::Failure;
use crate::router::Shared;

/// The most bytes of a JSON body, unless the operator says otherwise.
pub const DEFAULT_MAX_JSON_BYTES: usize = 1024 * 1024;
/// How long a JSON body may take to arrive, from its headers on.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// A body that is JSON, of any shape.
pub(crate) struct JsonBody(pub(crate) Value);

impl FromRequest<Shared> for JsonBody {
    type Rejection = Failure;

    async fn from_request(request: Request, shared: &Shared) -> Result<Self, Failure> {
        check_headers(request.headers())?;
        let bytes = read_body(request.into_body(), shared.options.max_json_bytes).await?;
        Ok(Self(json::parse(&bytes)?))
    }
}

/// The body of a request that may have none.
pub(crate) struct OptionalJsonBody(pub(crate) Option<Value>);

impl FromRequest<Shared> for OptionalJsonBody {
    type Rejection = Failure;

    async fn from_request(request: Request, shared: &Shared) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let bytes = read_body(body, shared.options.max_json_bytes).await?;
        // Whatever the headers say of it.
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        check_headers(&parts.headers)?;
        Ok(Self(Some(json::parse(&bytes)?)))
    }
}

/// # Errors
/// 415: it is not JSON, or it is JSON in a wrapping.
fn check_headers(headers: &HeaderMap) -> Result<(), Failure> {
    let unsupported = |message: &str| {
        let error = Error::new(ErrorCode::ValidationError, message);
        Err(Failure::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, error))
    };
    let is_json = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    if !is_json {
        return unsupported("Send JSON, with Content-Type: application/json.");
    }
    if headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return unsupported("Send the body as it is, without a Content-Encoding.");
    }
    Ok(())
}

/// The whole body.
///
/// # Errors
/// 413: it has more than `max_bytes`. 408: it did not arrive in time. 400: it broke off.
pub(crate) async fn read_body(body: Body, max_bytes: usize) -> Result<Bytes, Failure> {
    let too_large = || {
        let message = format!("The body is larger than {max_bytes} bytes.");
        let error = Error::new(ErrorCode::ValidationError, message);
        Failure::with_status(StatusCode::PAYLOAD_TOO_LARGE, error)
    };
    // One that says so itself need not be sent.
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(READ_LIMIT, to_bytes(body, max_bytes)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error))
            if error.source().is_some_and(|source| source.is::<http_body_util::LengthLimitError>()) =>
        {
            Err(too_large())
        }
        Ok(Err(_)) => {
            Err(Error::new(ErrorCode::ValidationError, "The body broke off before its end.").into())
        }
        Err(_) => {
            let message = format!("The body did not arrive within {} seconds.", READ_LIMIT.as_secs());
            let error = Error::new(ErrorCode::ValidationError, message);
            Err(Failure::with_status(StatusCode::REQUEST_TIMEOUT, error))
        }
    }
}
