//! Who asks: the bearer key of a request.

use axum::extract::FromRequestParts;
use herm_app::Caller;
use herm_types::{Error, ErrorCode};
use http::header::AUTHORIZATION;
use http::request::Parts;

use crate::error::Failure;
use crate::router::Shared;

/// The caller that a request's key stands for.
pub(crate) struct Auth(pub(crate) Caller);

impl FromRequestParts<Shared> for Auth {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Failure> {
        Ok(Self(caller(parts, shared).await?))
    }
}

/// Who asks; found out once for each request, by whoever needs it first.
///
/// # Errors
/// `unauthorized`: there is no key, or none that opens anything.
pub(crate) async fn caller(parts: &mut Parts, shared: &Shared) -> Result<Caller, Failure> {
    if let Some(caller) = parts.extensions.get::<Caller>() {
        return Ok(caller.clone());
    }
    let header = parts.headers.get(AUTHORIZATION).ok_or_else(|| unauthorized("No API key was given"))?;
    let key = header
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim())
        .ok_or_else(|| unauthorized("The Authorization header is not a bearer key"))?;
    let caller = shared.app.authenticate(key).await?;
    parts.extensions.insert(caller.clone());
    Ok(caller)
}

fn unauthorized(what: &str) -> Failure {
    let message = format!("{what}; send Authorization: Bearer herm_sk_….");
    Error::new(ErrorCode::Unauthorized, message).into()
}
