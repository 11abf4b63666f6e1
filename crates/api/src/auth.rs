//! Authenticates requests by the API key in the `Authorization` header.

use axum::extract::FromRequestParts;
use herm_app::Caller;
use herm_types::{Error, ErrorCode};
use http::header::AUTHORIZATION;
use http::request::Parts;

use crate::error::Failure;
use crate::state::ApiState;

/// Extractor for the authenticated caller of a request. A request without a valid key is rejected with 401.
pub(crate) struct Auth(pub(crate) Caller);

impl FromRequestParts<ApiState> for Auth {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Failure> {
        Ok(Self(caller(parts, state).await?))
    }
}

/// Returns the authenticated caller of a request. The first call looks up the API key in the database and stores the
/// caller in the request's extensions, where later calls for the same request find it.
///
/// # Errors
/// `unauthorized`: the key is missing or invalid.
pub(crate) async fn caller(parts: &mut Parts, state: &ApiState) -> Result<Caller, Failure> {
    if let Some(caller) = parts.extensions.get::<Caller>() {
        return Ok(caller.clone());
    }
    let header = parts.headers.get(AUTHORIZATION).ok_or_else(|| unauthorized("The API key is missing"))?;
    let key = header
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim())
        .ok_or_else(|| unauthorized("The Authorization header does not contain a bearer key"))?;
    let caller = state.app.authenticate(key).await?;
    parts.extensions.insert(caller.clone());
    Ok(caller)
}

fn unauthorized(problem: &str) -> Failure {
    let message = format!("{problem}; send \"Authorization: Bearer herm_sk_…\".");
    Error::new(ErrorCode::Unauthorized, message).into()
}
