//! `…/files`.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use herm_app::files::{self, Opened};
use herm_types::DeploymentId;
use herm_types::error::ErrorBody;
use herm_types::file::FileListing;
use http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, SeekFrom};
use tokio_util::io::ReaderStream;

use crate::auth::Auth;
use crate::error::Failure;
use crate::input::{DeploymentPath, Query};
use crate::range::{self, Asked};
use crate::router::Shared;

/// Bytes that are read from a file at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// List a directory of the workspace, by name.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/files", operation_id = "list_files", tag = "files",
    params(("deployment_id" = DeploymentId, Path),
        ("path" = Option<String>, Query, description = "Relative to the workspace; the workspace itself by default.")),
    responses((status = 200, body = FileListing), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn list_files(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
) -> Result<Json<FileListing>, Failure> {
    let directory = query.text("path").unwrap_or_default();
    query.finish()?;
    Ok(Json(files::list(&shared.app, &caller, path.deployment_id, directory).await?))
}

/// Read a file: its raw bytes, or a range of them.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/files/content", operation_id = "read_file", tag = "files",
    params(("deployment_id" = DeploymentId, Path), ("path" = String, Query),
        ("Range" = Option<String>, Header), ("If-None-Match" = Option<String>, Header)),
    responses((status = 200, body = [u8], content_type = "application/octet-stream"),
        (status = 206, body = [u8], content_type = "application/octet-stream"),
        (status = 304), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 416)))]
pub(crate) async fn read_file(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let Some(file) = query.text("path").filter(|file| !file.is_empty()) else {
        query.fault("path", "is required");
        query.finish()?;
        return Ok(StatusCode::BAD_REQUEST.into_response());
    };
    query.finish()?;
    let opened = files::open(&shared.app, &caller, path.deployment_id, file.clone()).await?;
    Ok(respond(opened, &file, &headers).await.unwrap_or_else(|error| {
        tracing::error!(%error, "failed to read a workspace's file");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }))
}

async fn respond(opened: Opened, path: &str, request: &HeaderMap) -> std::io::Result<Response> {
    let mut headers = HeaderMap::new();
    let etag = format!("\"{}\"", opened.etag);
    insert(&mut headers, ETAG, &etag);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    let seen = request.get(IF_NONE_MATCH).and_then(|seen| seen.to_str().ok()).unwrap_or_default();
    if seen.split(',').map(str::trim).any(|seen| seen == etag || seen == "*") {
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
        Asked::Beyond => {
            insert(&mut headers, CONTENT_RANGE, &format!("bytes */{}", opened.size));
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, headers).into_response());
        }
    };
    insert(&mut headers, CONTENT_LENGTH, &length.to_string());
    let mut file = tokio::fs::File::from_std(opened.file);
    file.seek(SeekFrom::Start(first)).await?;
    let body = Body::from_stream(ReaderStream::with_capacity(file.take(length), CHUNK_BYTES));
    Ok((status, headers, body).into_response())
}

fn insert(headers: &mut HeaderMap, name: http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
