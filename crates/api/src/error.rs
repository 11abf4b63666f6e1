//! Error responses: which status each error has, and the one body they share.

use axum::Json;
use axum::response::{IntoResponse, Response};
use herm_types::error::ErrorBody;
use herm_types::{Error, ErrorCode};
use http::{HeaderName, HeaderValue, StatusCode, header};

/// Seconds after which a client may try again when the server is away or stopping.
const RETRY_AFTER_S: &str = "1";

/// A request that was refused or failed. The response's body is written by [`write_body`], where the request's
/// id is known.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    error: Error,
    /// In a box, as few failures have one and all are passed about.
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

impl Failure {
    /// A failure whose status is not the code's own, such as 413 with `validation_error`.
    pub(crate) fn with_status(status: StatusCode, error: Error) -> Self {
        Self { status, error, header: None }
    }

    /// A failure after which the client may come back.
    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// A failure whose response says more in a header.
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

/// Carries an error from a handler to [`write_body`].
#[derive(Clone)]
struct Unwritten(Error);

/// Marks a response that has its body, whatever its status.
#[derive(Clone)]
struct Written;

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(Unwritten(self.error));
        response.headers_mut().extend(self.header.map(|header| *header));
        response
    }
}

/// Marks a response that has its body.
pub(crate) fn written(mut response: Response) -> Response {
    response.extensions_mut().insert(Written);
    response
}

/// Gives an error response its body; also one that the router made by itself, for an unknown path or method.
pub(crate) fn write_body(response: Response, request_id: &str) -> Response {
    let (mut parts, body) = response.into_parts();
    if parts.extensions.get::<Written>().is_some() {
        return Response::from_parts(parts, body);
    }
    let error = match parts.extensions.remove::<Unwritten>() {
        Some(Unwritten(error)) => error,
        None if parts.status == StatusCode::NOT_FOUND => Error::new(
            ErrorCode::NotFound,
            "There is nothing at this path; GET /openapi.json lists what there is.",
        ),
        None if parts.status == StatusCode::METHOD_NOT_ALLOWED => Error::new(
            ErrorCode::MethodNotAllowed,
            "This path has other methods; the Allow header names them.",
        ),
        None => return Response::from_parts(parts, body),
    };
    let body = Json(ErrorBody {
        error: error.code,
        message: error.message,
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
    written(response)
}
