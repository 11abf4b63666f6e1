//! `…/files/content`: returns the content of a file.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use herm_app::files::{self, OpenedFile};
use herm_types::error::ErrorBody;
use herm_types::{DeploymentId, Error, ErrorCode, ThreadId};
use http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, SeekFrom};
use tokio_util::io::ReaderStream;

use super::{FileContent, entity_tag, required_path, workspace_ref};
use crate::auth::Auth;
use crate::error::Failure;
use crate::input::{DeploymentPath, Query};
use crate::range::{RequestedRange, requested_range};
use crate::state::ApiState;

/// The size of the buffer into which a file is read, in bytes. Each filled buffer is one chunk of the response.
const CHUNK_BYTES: usize = 64 * 1024;

/// Read a file's content, or a range of it.
///
/// A HEAD request returns the same headers without the content.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/files/content", operation_id = "read_file", tag = "files",
    params(("deployment_id" = DeploymentId, Path),
        ("path" = String, Query, description = "The path of the file, relative to the workspace root."),
        ("thread_id" = Option<ThreadId>, Query, description = "The thread whose workspace is used. Defaults to the default thread. Allowed only if the deployment has no persistent file system, because then each thread has its own workspace."),
        ("Range" = Option<String>, Header, description = "One byte range. If the header contains several ranges, the whole content is sent."),
        ("If-Range" = Option<String>, Header, description = "An ETag. Unless it is the current one, `Range` is ignored and the whole content is sent."),
        ("If-None-Match" = Option<String>, Header, description = "A list of ETags. If it contains the current one, the response is 304.")),
    responses((status = 200, body = inline(FileContent), content_type = "*/*"),
        (status = 206, body = inline(FileContent), content_type = "*/*"),
        (status = 304, description = "The client already has the current content."), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 416, body = ErrorBody)))]
pub(crate) async fn read_file(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let file = required_path(&mut query);
    let workspace_ref = workspace_ref(&path, &mut query);
    query.finish()?;
    let opened = files::open(&state.app, &caller, workspace_ref, file.clone()).await?;
    respond(opened, &file, &headers).await
}

/// Creates the response to a request for a file: the whole content, the requested byte range, or 304 if the client
/// already has the current content.
pub(crate) async fn respond(
    opened: OpenedFile,
    path: &str,
    request: &HeaderMap,
) -> Result<Response, Failure> {
    let mut headers = HeaderMap::new();
    let etag = entity_tag::quoted(&opened.etag);
    insert(&mut headers, ETAG, &etag);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    insert(&mut headers, CONTENT_DISPOSITION, &disposition(path));
    // A malformed `If-None-Match` header is ignored: the client gets the content even if it already has it, which does
    // no harm.
    let client_tags = entity_tag::read(request, &IF_NONE_MATCH).flatten();
    if client_tags.is_some_and(|tags| tags.weak().contains(&opened.etag)) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let kind = mime_guess::from_path(path).first_or_octet_stream();
    insert(&mut headers, CONTENT_TYPE, kind.as_ref());
    let (status, first, length) = match requested_range(request, &etag, opened.size) {
        RequestedRange::Whole => (StatusCode::OK, 0, opened.size),
        RequestedRange::Part { first, last } => {
            insert(&mut headers, CONTENT_RANGE, &format!("bytes {first}-{last}/{}", opened.size));
            (StatusCode::PARTIAL_CONTENT, first, last - first + 1)
        }
        RequestedRange::Unsatisfiable => return Err(range_not_satisfiable(opened.size)),
    };
    insert(&mut headers, CONTENT_LENGTH, &length.to_string());
    let mut file = tokio::fs::File::from_std(opened.file);
    file.seek(SeekFrom::Start(first)).await.map_err(|error| {
        tracing::error!(%error, file = path, "failed to seek to the requested range of a file download");
        Error::new(ErrorCode::ServerError, "Failed to read the file.")
    })?;
    let body = Body::from_stream(ReaderStream::with_capacity(file.take(length), CHUNK_BYTES));
    Ok((status, headers, body).into_response())
}

fn range_not_satisfiable(size: u64) -> Failure {
    let message = format!("The range does not overlap the file, which has {size} bytes.");
    let error = Error::new(ErrorCode::ValidationError, message);
    let failure = Failure::with_status(StatusCode::RANGE_NOT_SATISFIABLE, error);
    match HeaderValue::from_str(&format!("bytes */{size}")) {
        Ok(range) => failure.with_header(CONTENT_RANGE, range),
        Err(_) => failure,
    }
}

/// Returns the value of the `Content-Disposition` header for a file (RFC 6266). It is always `attachment`, so that
/// browsers download the agent's files instead of rendering them. A file name with special characters is included
/// twice: simplified for old clients, and percent-encoded (RFC 8187).
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

/// Returns true if a character may appear unescaped in a quoted file name. `"` and `\` are excluded because they end or
/// escape the quoted string, and `%` because some clients would percent-decode the name.
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
    fn a_file_name_is_preserved_and_cannot_inject_headers() {
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
