//! `/v1/snapshots`: lists, downloads and deletes snapshots, the retained files of deleted deployments.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use herm_app::files::OpenedFile;
use herm_app::snapshots::{self, ListFilter};
use herm_types::SnapshotId;
use herm_types::error::ErrorBody;
use herm_types::paging::Page;
use herm_types::snapshot::{Snapshot, SnapshotStatus};
use http::HeaderMap;
use serde::Serialize;

use crate::auth::Auth;
use crate::error::Failure;
use crate::files::FileContent;
use crate::files::content::respond;
use crate::input::{IdPath, Query};
use crate::state::ApiState;

/// List the account's snapshots, newest first.
#[utoipa::path(get, path = "/v1/snapshots", operation_id = "list_snapshots", tag = "snapshots",
    params(("customer_id" = Option<String>, Query), ("status" = Option<SnapshotStatus>, Query),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<Snapshot>), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(crate) async fn list_snapshots(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    mut query: Query,
) -> Result<Json<Page<Snapshot>>, Failure> {
    let filter = ListFilter {
        customer_id: query.take_non_empty("customer_id"),
        status: query.choice("status", SnapshotStatus::parse, "`creating`, `ready`, `error`"),
    };
    let page = query.page::<SnapshotId>();
    query.finish()?;
    Ok(Json(snapshots::list(&state.app, &caller, filter, page).await?))
}

/// Get a snapshot.
#[utoipa::path(get, path = "/v1/snapshots/{snapshot_id}", operation_id = "get_snapshot", tag = "snapshots",
    params(("snapshot_id" = SnapshotId, Path)),
    responses((status = 200, body = Snapshot), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
pub(crate) async fn get_snapshot(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: IdPath,
    query: Query,
) -> Result<Json<Snapshot>, Failure> {
    query.finish()?;
    Ok(Json(snapshots::get(&state.app, &caller, path.id("snapshot", "snapshot_id")?).await?))
}

/// Download the archive of a snapshot, or a byte range of it.
///
/// The archive is a tar file, compressed with zstd. The files of the workspace are under `workspace/`. The last entry,
/// `manifest.jsonl`, has one line for each of these files, with the SHA-256 of the file's content.
#[utoipa::path(get, path = "/v1/snapshots/{snapshot_id}/content", operation_id = "read_snapshot", tag = "snapshots",
    params(("snapshot_id" = SnapshotId, Path),
        ("Range" = Option<String>, Header, description = "One byte range. If the header contains several ranges, the whole content is sent."),
        ("If-Range" = Option<String>, Header, description = "An ETag. Unless it is the current one, `Range` is ignored and the whole content is sent."),
        ("If-None-Match" = Option<String>, Header, description = "A list of ETags. If it contains the current one, the response is 304.")),
    responses((status = 200, body = inline(FileContent), content_type = "*/*"),
        (status = 206, body = inline(FileContent), content_type = "*/*"),
        (status = 304, description = "The client already has the current content."), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 416, body = ErrorBody)))]
pub(crate) async fn read_snapshot(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: IdPath,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    query.finish()?;
    let snapshot_id: SnapshotId = path.id("snapshot", "snapshot_id")?;
    let opened: OpenedFile = snapshots::open(&state.app, &caller, snapshot_id).await?;
    respond(opened, &format!("{snapshot_id}.tar.zst"), &headers).await
}

/// A deleted snapshot.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DeletedSnapshot {
    snapshot_id: SnapshotId,
    #[schema(pattern = "^deleted$")]
    status: &'static str,
}

/// Delete a snapshot permanently. A snapshot that is still being created can be deleted too.
#[utoipa::path(delete, path = "/v1/snapshots/{snapshot_id}", operation_id = "delete_snapshot", tag = "snapshots",
    params(("snapshot_id" = SnapshotId, Path)),
    responses((status = 200, body = DeletedSnapshot), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn delete_snapshot(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: IdPath,
    query: Query,
) -> Result<Json<DeletedSnapshot>, Failure> {
    query.finish()?;
    let snapshot_id: SnapshotId = path.id("snapshot", "snapshot_id")?;
    snapshots::delete(&state.app, &caller, snapshot_id).await?;
    Ok(Json(DeletedSnapshot { snapshot_id, status: "deleted" }))
}
