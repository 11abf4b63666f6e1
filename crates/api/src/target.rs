//! Checks that the path and the query string of a request are valid text after percent-decoding.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use herm_types::{Error, ErrorCode};
use percent_encoding::percent_decode_str;

use crate::error::Failure;

/// Rejects a request whose path or query string, after percent-decoding, is not UTF-8 or contains the character U+0000,
/// which PostgreSQL cannot store.
pub(crate) async fn layer(request: Request, next: Next) -> Response {
    let parts = [("path", Some(request.uri().path())), ("query string", request.uri().query())];
    for (name, text) in parts {
        if !is_text(text.unwrap_or_default()) {
            let message = format!("The {name} must be percent-encoded UTF-8 without the character U+0000.");
            return Failure::from(Error::new(ErrorCode::ValidationError, message)).into_response();
        }
    }
    next.run(request).await
}

fn is_text(encoded: &str) -> bool {
    percent_decode_str(encoded).decode_utf8().is_ok_and(|text| !text.contains('\0'))
}
