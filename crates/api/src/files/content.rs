//! `…/files/content`: a file's bytes.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use herm_app::files::{self, Opened};
use herm_types::error::ErrorBody;
use herm_types::{DeploymentId, Error, ErrorCode, ThreadId};
use http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, SeekFrom};
use tokio_util::io::ReaderStream;

use super::{FileContent, entity_tag, required_path, whose};
use crate::auth::Auth;
use crate::error::Failure;
use crate::input::{DeploymentPath, Query};
use crate::range::{self, Asked};
use crate::router::Shared;

/// Bytes that are read from a file at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Read a file: its raw bytes, or a range of them. HEAD tells the same without the bytes.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/files/content", operation_id = "read_file", tag = "files",
    params(("deployment_id" = DeploymentId, Path),
        ("path" = String, Query, description = "Relative to the workspace."),
        ("thread_id" = Option<ThreadId>, Query, description = "Only without a persistent file system: whose workspace; the default thread's by default."),
        ("Range" = Option<String>, Header, description = "One range of bytes; with several the whole is sent."),
        ("If-Range" = Option<String>, Header, description = "The range counts only if this is still the ETag."),
        ("If-None-Match" = Option<String>, Header, description = "The bytes are sent only if the ETag is another.")),
    responses((status = 200, body = inline(FileContent), content_type = "*/*"),
        (status = 206, body = inline(FileContent), content_type = "*/*"),
        (status = 304, description = "The client has it."), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 416, body = ErrorBody)))]
pub(crate) async fn read_file(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let file = required_path(&mut query);
    let whose = whose(&path, &mut query);
    query.finish()?;
    let opened = files::open(&shared.app, &caller, whose, file.clone()).await?;
    respond(opened, &file, &headers).await
}

/// A file's bytes, or what of them is asked for.
pub(crate) async fn respond(opened: Opened, path: &str, request: &HeaderMap) -> Result<Response, Failure> {
    let mut headers = HeaderMap::new();
    let etag = entity_tag::quoted(&opened.etag);
    insert(&mut headers, ETAG, &etag);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    insert(&mut headers, CONTENT_DISPOSITION, &disposition(path));
    // A header that cannot be read costs the bytes, not the answer.
    let seen = entity_tag::read(request, &IF_NONE_MATCH).flatten();
    if seen.is_some_and(|seen| seen.weak().contains(&opened.etag)) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let kind = mime_guess::from_path(path).first_or_octet_stream();
    insert(&mut headers, CONTENT_TYPE, kind.as_ref());
    let (status, first, length) = match range::asked(request, &etag, opened.size) {
        Asked::Whole => (StatusCode::OK, 0, opened.size),
        Asked::Part { first, last } => {
            insert(&mut headers, CONTENT_RANGE, &format!("bytes {first}-{last}/{}", opened.size));
            (StatusCode::PARTIAL_CONTENT, first, last - first + 1)
        }
        Asked::Beyond => return Err(beyond(opened.size)),
    };
    insert(&mut headers, CONTENT_LENGTH, &length.to_string());
    let mut file = tokio::fs::File::from_std(opened.file);
    file.seek(SeekFrom::Start(first)).await.map_err(|error| {
        tracing::error!(%error, "failed to read a workspace's file");
        Error::new(ErrorCode::ServerError, "The file could not be read.")
    })?;
    let body = Body::from_stream(ReaderStream::with_capacity(file.take(length), CHUNK_BYTES));
    Ok((status, headers, body).into_response())
}

fn beyond(size: u64) -> Failure {
    let message = format!("Range: the file has {size} bytes; ask for a range that begins within them.");
    let error = Error::new(ErrorCode::ValidationError, message);
    let failure = Failure::with_status(StatusCode::RANGE_NOT_SATISFIABLE, error);
    match HeaderValue::from_str(&format!("bytes */{size}")) {
        Ok(range) => failure.with_header(CONTENT_RANGE, range),
        Err(_) => failure,
    }
}

/// Always to be saved, under the file's own name: a plain one for old clients, and the true one (RFC 6266, RFC 8187).
fn disposition(path: &str) -> String {
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    if plain == name {
        return format!("attachment; filename=\"{plain}\"");
    }
    let mut encoded = String::new();
    for byte in name.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) {
            encoded.push(c);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
}

/// Whether a character means itself in a quoted name: `%` is decoded by some, `"` and `\` end or escape it.
fn is_plain(c: char) -> bool {
    matches!(c, ' '..='~') && !matches!(c, '"' | '\\' | '%' | '/' | ';')
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_whole_and_breaks_out_of_nothing() {
        assert_eq!(disposition("a/b c.txt"), "attachment; filename=\"b c.txt\"");
        assert_eq!(
            disposition("q\"x\\y;z%41.txt"),
            "attachment; filename=\"q_x_y_z_41.txt\"; filename*=UTF-8''q%22x%5Cy%3Bz%2541.txt"
        );
        assert_eq!(
            disposition("a\r\nSet-Cookie: b"),
            "attachment; filename=\"a__Set-Cookie: b\"; filename*=UTF-8''a%0D%0ASet-Cookie%3A%20b"
        );
        assert_eq!(
            disposition("d/naïve €.pdf"),
            "attachment; filename=\"na_ve _.pdf\"; filename*=UTF-8''na%C3%AFve%20%E2%82%AC.pdf"
        );
    }
}
