//! `…/files`.

pub(crate) mod content;
mod entity_tag;

use axum::Json;
use axum::body::{Body, HttpBody as _};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use herm_app::files::{self, Upload, Whose};
use herm_types::error::ErrorBody;
use herm_types::file::{FileListing, Precondition, WrittenFile};
use herm_types::{DeploymentId, Error, ErrorCode, ThreadId};
use http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue};
use serde::Serialize;

use crate::auth::Auth;
use crate::error::Failure;
use crate::input::{DeploymentPath, Faults, Query};
use crate::router::Shared;

/// List a directory of the workspace, by name.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/files", operation_id = "list_files", tag = "files",
    params(("deployment_id" = DeploymentId, Path),
        ("path" = Option<String>, Query, description = "Relative to the workspace; the workspace itself by default."),
        ("thread_id" = Option<ThreadId>, Query, description = "Only without a persistent file system: whose workspace; the default thread's by default.")),
    responses((status = 200, body = FileListing), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn list_files(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
) -> Result<Json<FileListing>, Failure> {
    let directory = query.text("path").unwrap_or_default();
    let whose = whose(&path, &mut query);
    query.finish()?;
    Ok(Json(files::list(&shared.app, &caller, whose, directory).await?))
}

/// Any bytes.
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "it is the shape alone")]
pub(crate) struct FileContent(Vec<u8>);

/// Write a file: the body's bytes, whatever their type, become its content; missing directories are made. It is replaced
/// in one instant, or stays as it was.
#[utoipa::path(put, path = "/v1/deployments/{deployment_id}/files", operation_id = "write_file", tag = "files",
    params(("deployment_id" = DeploymentId, Path),
        ("path" = String, Query, description = "Relative to the workspace."),
        ("thread_id" = Option<ThreadId>, Query, description = "Only without a persistent file system: whose workspace; the default thread's by default."),
        ("If-Match" = Option<String>, Header,
            description = "Write only if the file's ETag is one of these; *: only if there is a file. Else: 409."),
        ("If-None-Match" = Option<String>, Header, description = "*: write only if there is no file yet. Else: 409.")),
    request_body(content = inline(FileContent), content_type = "application/octet-stream"),
    responses((status = 200, body = WrittenFile, headers(("ETag" = String))), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 413, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn write_file(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let file = required_path(&mut query);
    let whose = whose(&path, &mut query);
    query.finish()?;
    let precondition = precondition(&headers)?;
    let announced = body.size_hint().exact();
    let mut upload = Upload::begin(&shared.app, &caller, whose, file, precondition, announced).await?;
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| {
            tracing::debug!(%error, "a body broke off");
            Error::new(ErrorCode::ValidationError, "The body broke off before its end; nothing was written.")
        })?;
        upload = upload.write(&piece).await?;
    }
    let uploaded = upload.finish().await?;
    let mut response = Json(uploaded.file).into_response();
    if let Ok(etag) = HeaderValue::from_str(&entity_tag::quoted(&uploaded.etag)) {
        response.headers_mut().insert(ETAG, etag);
    }
    Ok(response)
}

/// A file or a directory that is gone.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DeletedFile {
    /// Relative to the workspace.
    path: String,
    #[schema(pattern = "^deleted$")]
    status: &'static str,
}

/// Delete a file, or a directory with all that is in it. The workspace itself stays.
#[utoipa::path(delete, path = "/v1/deployments/{deployment_id}/files", operation_id = "delete_file", tag = "files",
    params(("deployment_id" = DeploymentId, Path),
        ("path" = String, Query, description = "Relative to the workspace."),
        ("thread_id" = Option<ThreadId>, Query, description = "Only without a persistent file system: whose workspace; the default thread's by default."),
        ("If-Match" = Option<String>, Header, description = "Delete only if the file's ETag is one of these. Else: 409.")),
    responses((status = 200, body = DeletedFile), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
pub(crate) async fn delete_file(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Json<DeletedFile>, Failure> {
    let file = required_path(&mut query);
    let whose = whose(&path, &mut query);
    query.finish()?;
    let precondition = precondition(&headers)?;
    let path = files::delete(&shared.app, &caller, whose, file, precondition).await?;
    Ok(Json(DeletedFile { path, status: "deleted" }))
}

/// Whose workspace is meant.
fn whose(path: &DeploymentPath, query: &mut Query) -> Whose {
    Whose { deployment_id: path.deployment_id, thread_id: query.parse("thread_id") }
}

/// The parameter `path`; without it a fault is noted.
fn required_path(query: &mut Query) -> String {
    let path = query.text("path").filter(|path| !path.is_empty());
    path.unwrap_or_else(|| {
        query.fault("path", "is required");
        String::new()
    })
}

fn precondition(headers: &HeaderMap) -> Result<Precondition, Error> {
    let mut faults = Faults::default();
    let mut read = |name| {
        entity_tag::read(headers, &name).unwrap_or_else(|| {
            faults.add(name.as_str(), "must be *, or entity tags in double quotes, separated by commas");
            None
        })
    };
    let (if_match, if_none_match) = (read(IF_MATCH), read(IF_NONE_MATCH));
    faults.check()?;
    Ok(Precondition {
        if_match: if_match.map(entity_tag::Tags::strong),
        if_none_match: if_none_match.map(entity_tag::Tags::weak),
    })
}
