//! Error responses: maps each error code to an HTTP status, and writes the JSON error body, which has the same format
//! for all operations.

use axum::Json;
use axum::response::{IntoResponse, Response};
use herm_types::error::ErrorBody;
use herm_types::{Error, ErrorCode};
use http::{HeaderName, HeaderValue, StatusCode, header};

/// The value of the `Retry-After` header of 503 responses, in seconds.
const RETRY_AFTER_S: &str = "1";

/// The response to a rejected or failed request, without a body. [`write_body`] adds the body later, because only the
/// middleware that calls it knows the request id.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    error: Error,
    /// An additional response header. Most failures have none, so it is boxed to keep `Failure` small.
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

impl Failure {
    /// Creates a failure with an HTTP status other than the default of the error code, for example 413 with
    /// `validation_error`.
    pub(crate) fn with_status(status: StatusCode, error: Error) -> Self {
        Self { status, error, header: None }
    }

    /// Sets the response header `Retry-After`.
    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Adds a header to the error response. The response can have only one extra header, so this replaces an earlier one.
    pub(crate) fn with_header(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some(Box::new((name, value))), ..self }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::with_status(status_of(error.code), error)
    }
}

impl From<herm_app::Error> for Failure {
    fn from(error: herm_app::Error) -> Self {
        let is_too_large = matches!(error, herm_app::Error::TooLarge(_));
        let error = error.into_response();
        let status = if is_too_large { StatusCode::PAYLOAD_TOO_LARGE } else { status_of(error.code) };
        Self::with_status(status, error)
    }
}

fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::ValidationError => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::DeploymentNotReady | ErrorCode::Conflict | ErrorCode::IdempotencyConflict => {
            StatusCode::CONFLICT
        }
        ErrorCode::InvalidSkill | ErrorCode::InvalidSecretRef => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The error of a failed request. It is stored in the response's extensions until [`write_body`] writes it into the
/// body.
#[derive(Clone)]
struct PendingError(Error);

/// A marker in the extensions of a response whose body is complete. [`write_body`] does not change such a response,
/// whatever its status is.
#[derive(Clone)]
struct BodyComplete;

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(PendingError(self.error));
        response.headers_mut().extend(self.header.map(|header| *header));
        response
    }
}

/// Marks a response as complete, so that [`write_body`] does not replace the body.
pub(crate) fn mark_body_complete(mut response: Response) -> Response {
    response.extensions_mut().insert(BodyComplete);
    response
}

/// Writes the JSON error body of a response whose extensions contain an error. Also writes it for the 404 and 405
/// responses that axum's router creates for an unknown path or method. Other responses are returned unchanged.
pub(crate) fn write_body(response: Response, request_id: &str) -> Response {
    let (mut parts, body) = response.into_parts();
    if parts.extensions.get::<BodyComplete>().is_some() {
        return Response::from_parts(parts, body);
    }
    let error = match parts.extensions.remove::<PendingError>() {
        Some(PendingError(error)) => error,
        None if parts.status == StatusCode::NOT_FOUND => {
            Error::new(ErrorCode::NotFound, "Path not found; see `GET /openapi.json` for the list of paths.")
        }
        None if parts.status == StatusCode::METHOD_NOT_ALLOWED => {
            Error::new(ErrorCode::MethodNotAllowed, "Method not allowed; see the Allow header.")
        }
        None => return Response::from_parts(parts, body),
    };
    let message = match error.code {
        // The response does not reveal the cause of an internal error. The cause is in the server log, in lines that
        // contain the request id.
        ErrorCode::ServerError => {
            format!("{}; see the server log for request {request_id}.", error.message.trim_end_matches('.'))
        }
        _ => error.message,
    };
    let body = Json(ErrorBody {
        error: error.code,
        message,
        details: error.details,
        request_id: request_id.to_owned(),
    });
    let mut response = (parts.status, body).into_response();
    for name in [header::ALLOW, header::WWW_AUTHENTICATE, header::CONTENT_RANGE, header::RETRY_AFTER] {
        if let Some(value) = parts.headers.remove(&name) {
            response.headers_mut().insert(name, value);
        }
    }
    if parts.status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
    }
    if parts.status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    mark_body_complete(response)
}
