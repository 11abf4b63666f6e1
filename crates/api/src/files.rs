//! `…/files`: lists, writes and deletes the files of a workspace.

pub(crate) mod content;
mod entity_tag;

use axum::Json;
use axum::body::{Body, HttpBody as _};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use herm_app::files::{self, Upload, WorkspaceRef};
use herm_types::error::ErrorBody;
use herm_types::file::{FileListing, Precondition, WrittenFile};
use herm_types::{DeploymentId, Error, ErrorCode, ThreadId};
use http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue};
use serde::Serialize;

use crate::auth::Auth;
use crate::error::Failure;
use crate::input::{DeploymentPath, FieldErrors, Query};
use crate::state::ApiState;

/// List a directory of the workspace, sorted by name.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/files", operation_id = "list_files", tag = "files",
    params(("deployment_id" = DeploymentId, Path),
        ("path" = Option<String>, Query, description = "The path of the directory, relative to the workspace root. Defaults to the root."),
        ("thread_id" = Option<ThreadId>, Query, description = "The thread whose workspace is used. Defaults to the default thread. Allowed only if the deployment has no persistent file system, because then each thread has its own workspace.")),
    responses((status = 200, body = FileListing), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn list_files(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
) -> Result<Json<FileListing>, Failure> {
    let directory = query.take("path").unwrap_or_default();
    let workspace_ref = workspace_ref(&path, &mut query);
    query.finish()?;
    Ok(Json(files::list(&state.app, &caller, workspace_ref, directory).await?))
}

/// The raw content of a file.
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "it only describes the schema")]
pub(crate) struct FileContent(Vec<u8>);

/// Write a file.
///
/// The request body is the new content of the file. Its Content-Type is ignored. Missing directories in the path are
/// created. An existing file is replaced atomically: if the request fails, the file is unchanged.
#[utoipa::path(put, path = "/v1/deployments/{deployment_id}/files", operation_id = "write_file", tag = "files",
    params(("deployment_id" = DeploymentId, Path),
        ("path" = String, Query, description = "The path of the file, relative to the workspace root."),
        ("thread_id" = Option<ThreadId>, Query, description = "The thread whose workspace is used. Defaults to the default thread. Allowed only if the deployment has no persistent file system, because then each thread has its own workspace."),
        ("If-Match" = Option<String>, Header,
            description = "A list of ETags, or `*`. The file is written only if it exists and has one of these ETags (`*`: any ETag). Otherwise the response is 409."),
        ("If-None-Match" = Option<String>, Header, description = "With `*`, the file is written only if it does not exist. Otherwise the response is 409.")),
    request_body(content = inline(FileContent), content_type = "application/octet-stream"),
    responses((status = 200, body = WrittenFile, headers(("ETag" = String))), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 413, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn write_file(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let file = required_path(&mut query);
    let workspace_ref = workspace_ref(&path, &mut query);
    query.finish()?;
    let precondition = precondition(&headers)?;
    let content_length = body.size_hint().exact();
    let mut upload =
        Upload::begin(&state.app, &caller, workspace_ref, file, precondition, content_length).await?;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            tracing::debug!(%error, "failed to read the request body of a file upload");
            Error::new(
                ErrorCode::ValidationError,
                "The connection closed before the end of the request body; the file is unchanged.",
            )
        })?;
        upload = upload.write(&chunk).await?;
    }
    let uploaded = upload.finish().await?;
    let mut response = Json(uploaded.file).into_response();
    if let Ok(etag) = HeaderValue::from_str(&entity_tag::quoted(&uploaded.etag)) {
        response.headers_mut().insert(ETAG, etag);
    }
    Ok(response)
}

/// A deleted file or directory.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DeletedFile {
    /// The path of the deleted file or directory, relative to the workspace root.
    path: String,
    #[schema(pattern = "^deleted$")]
    status: &'static str,
}

/// Delete a file, or a directory with all of its contents. The workspace itself cannot be deleted.
#[utoipa::path(delete, path = "/v1/deployments/{deployment_id}/files", operation_id = "delete_file", tag = "files",
    params(("deployment_id" = DeploymentId, Path),
        ("path" = String, Query, description = "The path of the file, relative to the workspace root."),
        ("thread_id" = Option<ThreadId>, Query, description = "The thread whose workspace is used. Defaults to the default thread. Allowed only if the deployment has no persistent file system, because then each thread has its own workspace."),
        ("If-Match" = Option<String>, Header, description = "A list of ETags. The file is deleted only if it has one of them. Otherwise the response is 409.")),
    responses((status = 200, body = DeletedFile), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
pub(crate) async fn delete_file(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Json<DeletedFile>, Failure> {
    let file = required_path(&mut query);
    let workspace_ref = workspace_ref(&path, &mut query);
    query.finish()?;
    let precondition = precondition(&headers)?;
    let path = files::delete(&state.app, &caller, workspace_ref, file, precondition).await?;
    Ok(Json(DeletedFile { path, status: "deleted" }))
}

/// Returns the workspace that a file request refers to. The deployment id is in the path. If each thread has its own
/// workspace, the optional query parameter `thread_id` selects the thread.
fn workspace_ref(path: &DeploymentPath, query: &mut Query) -> WorkspaceRef {
    WorkspaceRef { deployment_id: path.deployment_id, thread_id: query.parse("thread_id") }
}

/// Reads the required query parameter `path`. Adds a field error if it is missing or empty.
fn required_path(query: &mut Query) -> String {
    let path = query.take("path").filter(|path| !path.is_empty());
    path.unwrap_or_else(|| {
        query.error("path", "is required");
        String::new()
    })
}

fn precondition(headers: &HeaderMap) -> Result<Precondition, Error> {
    let mut errors = FieldErrors::default();
    let mut read = |name| {
        entity_tag::read(headers, &name).unwrap_or_else(|| {
            errors
                .add(name.as_str(), "must be `*`, or a comma-separated list of entity tags in double quotes");
            None
        })
    };
    let (if_match, if_none_match) = (read(IF_MATCH), read(IF_NONE_MATCH));
    errors.check()?;
    Ok(Precondition {
        if_match: if_match.map(entity_tag::Tags::strong),
        if_none_match: if_none_match.map(entity_tag::Tags::weak),
    })
}
