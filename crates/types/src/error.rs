//! The errors that the API returns. Each crate converts its own errors to [`Error`] before they reach a
//! handler.

use serde::Serialize;

/// A stable, machine-readable error code. Clients should branch on the code, not on the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    ValidationError,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    DeploymentNotReady,
    Conflict,
    IdempotencyConflict,
    InvalidSkill,
    InvalidSecretRef,
    RateLimited,
    ServerError,
    Unavailable,
}

/// One invalid field of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// The path of the field in the request, for example `skills[1].url`.
    pub path: String,
    /// The reason why the field is invalid, for example `must not be empty`.
    pub message: String,
}

impl FieldError {
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// An API error: a stable code, a human-readable message, and the field errors of the request, if any.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub code: ErrorCode,
    pub message: String,
    pub details: Vec<FieldError>,
}

impl Error {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Vec::new() }
    }

    /// Creates a `not_found` error for a resource. The message is the same whether the resource does not
    /// exist or belongs to another account.
    pub fn not_found(resource: &str, id: &str) -> Self {
        Self::new(ErrorCode::NotFound, format!("No {resource} {id:?} exists in this account."))
    }

    /// Creates a `validation_error` from the field errors of a request. The message quotes the first field
    /// error and states the number of further ones.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        // The path is empty if the error concerns the request body as a whole.
        let describe = |error: &FieldError, more: &str| match error.path.as_str() {
            "" => format!("The request body {}{more}.", error.message),
            path => format!("{path}: {}{more}", error.message),
        };
        let message = match errors.as_slice() {
            [] => "The request is invalid.".to_owned(),
            [one] => describe(one, ""),
            [first, rest @ ..] => describe(first, &format!(" (and {} more)", rest.len())),
        };
        Self { code: ErrorCode::ValidationError, message, details: errors }
    }
}

/// The body of an error response.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ErrorBody {
    pub error: ErrorCode,
    /// A human-readable explanation. The wording may change between releases.
    pub message: String,
    /// The invalid fields of the request. Absent if the error does not concern individual fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<FieldError>,
    /// The id of the HTTP request, also in the `X-Request-Id` response header and in the server log.
    pub request_id: String,
}
