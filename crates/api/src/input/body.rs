//! A request's JSON body.

use std::error::Error as _;

use axum::body::{HttpBody as _, to_bytes};
use axum::extract::{FromRequest, Request};
use herm_types::{Error, ErrorCode};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use crate::error::Failure;

/// The most bytes of a JSON body.
pub(crate) const MAX_JSON_BYTES: usize = 1024 * 1024;

/// A body that is JSON, of any shape.
pub(crate) struct JsonBody(pub(crate) Value);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let is_json = request
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
        if !is_json {
            let error =
                Error::new(ErrorCode::ValidationError, "Send JSON, with Content-Type: application/json.");
            return Err(Failure::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
        }
        let bytes = to_bytes(request.into_body(), MAX_JSON_BYTES).await.map_err(|error| unread(&error))?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            Error::new(ErrorCode::ValidationError, format!("The body is not JSON: {error}.")).into()
        })
    }
}

/// The body of a request that may have none.
pub(crate) struct OptionalJsonBody(pub(crate) Option<Value>);

impl<S: Send + Sync> FromRequest<S> for OptionalJsonBody {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        // Of HTTP/1.1 the headers say it, of HTTP/2 the end of the stream; the body knows both.
        if request.body().is_end_stream() {
            return Ok(Self(None));
        }
        let JsonBody(body) = JsonBody::from_request(request, state).await?;
        Ok(Self(Some(body)))
    }
}

fn unread(error: &axum::Error) -> Failure {
    if error.source().is_some_and(|source| source.is::<http_body_util::LengthLimitError>()) {
        let message = format!("The body is larger than {MAX_JSON_BYTES} bytes.");
        let error = Error::new(ErrorCode::ValidationError, message);
        return Failure::with_status(StatusCode::PAYLOAD_TOO_LARGE, error);
    }
    Error::new(ErrorCode::ValidationError, "The body broke off before its end.").into()
}
