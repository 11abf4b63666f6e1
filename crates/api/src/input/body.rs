//! Reads JSON request bodies.

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
use crate::state::ApiState;

/// The maximum time for receiving a JSON request body, from the moment when the server starts to read it. If receiving
/// takes longer, the response is 408.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Extractor for a required JSON request body. The JSON is well-formed, but its fields are not validated yet.
pub(crate) struct JsonBody(pub(crate) Value);

impl FromRequest<ApiState> for JsonBody {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, Failure> {
        check_headers(request.headers())?;
        let bytes = read_body(request.into_body(), state.options.max_json_bytes).await?;
        Ok(Self(json::parse(&bytes)?))
    }
}

/// Extractor for an optional JSON request body, `None` if the body is empty. The JSON is well-formed, but its fields
/// are not validated yet.
pub(crate) struct OptionalJsonBody(pub(crate) Option<Value>);

impl FromRequest<ApiState> for OptionalJsonBody {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let bytes = read_body(body, state.options.max_json_bytes).await?;
        // An empty body is allowed with any Content-Type.
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        check_headers(&parts.headers)?;
        Ok(Self(Some(json::parse(&bytes)?)))
    }
}

/// Checks that the header fields of a request declare the body as uncompressed JSON.
///
/// # Errors
/// 415: the Content-Type is not JSON, or the body has a Content-Encoding.
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
        return unsupported("The Content-Type must be application/json.");
    }
    if headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return unsupported("Compressed bodies are not supported; send the body without a Content-Encoding.");
    }
    Ok(())
}

/// Reads a whole request body into memory.
///
/// # Errors
/// 413: the body exceeds `max_bytes`. 408: the body did not arrive in time. 400: the connection closed before the end
/// of the body.
pub(crate) async fn read_body(body: Body, max_bytes: usize) -> Result<Bytes, Failure> {
    let too_large = || {
        let message = format!("The request body exceeds {max_bytes} bytes.");
        let error = Error::new(ErrorCode::ValidationError, message);
        Failure::with_status(StatusCode::PAYLOAD_TOO_LARGE, error)
    };
    // If the Content-Length exceeds the limit, reject the request without reading the body.
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(READ_TIMEOUT, to_bytes(body, max_bytes)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error))
            if error.source().is_some_and(|source| source.is::<http_body_util::LengthLimitError>()) =>
        {
            Err(too_large())
        }
        Ok(Err(_)) => Err(Error::new(
            ErrorCode::ValidationError,
            "The connection closed before the end of the request body.",
        )
        .into()),
        Err(_) => {
            let message =
                format!("The request body did not arrive within {} seconds.", READ_TIMEOUT.as_secs());
            let error = Error::new(ErrorCode::ValidationError, message);
            Err(Failure::with_status(StatusCode::REQUEST_TIMEOUT, error))
        }
    }
}
