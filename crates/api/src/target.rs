//! What a request is aimed at: a path and a query that must be text.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use herm_types::{Error, ErrorCode};
use percent_encoding::percent_decode_str;

use crate::error::Failure;

/// Refuses a path or a query that does not decode to UTF-8, or holds a NUL, which no database stores.
pub(crate) async fn layer(request: Request, next: Next) -> Response {
    let parts = [("path", Some(request.uri().path())), ("query", request.uri().query())];
    for (what, text) in parts {
        if !is_text(text.unwrap_or_default()) {
            let message = format!("The {what} is not UTF-8 text without the character U+0000.");
            return Failure::from(Error::new(ErrorCode::ValidationError, message)).into_response();
        }
    }
    next.run(request).await
}

fn is_text(encoded: &str) -> bool {
    percent_decode_str(encoded).decode_utf8().is_ok_and(|text| !text.contains('\0'))
}
