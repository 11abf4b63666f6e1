//! `/v1/snapshots`: the files of deployments that were deleted.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use herm_app::files::Opened;
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
use crate::router::Shared;

/// List snapshots, newest first.
#[utoipa::path(get, path = "/v1/snapshots", operation_id = "list_snapshots", tag = "snapshots",
    params(("customer_id" = Option<String>, Query), ("status" = Option<SnapshotStatus>, Query),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<Snapshot>), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(crate) async fn list_snapshots(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    mut query: Query,
) -> Result<Json<Page<Snapshot>>, Failure> {
    let filter = ListFilter {
        customer_id: query.text("customer_id"),
        status: query.choice("status", SnapshotStatus::parse, "creating, ready, error"),
    };
    let page = query.page::<SnapshotId>();
    query.finish()?;
    Ok(Json(snapshots::list(&shared.app, &caller, filter, page).await?))
}

/// Get a snapshot.
#[utoipa::path(get, path = "/v1/snapshots/{snapshot_id}", operation_id = "get_snapshot", tag = "snapshots",
    params(("snapshot_id" = SnapshotId, Path)),
    responses((status = 200, body = Snapshot), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
pub(crate) async fn get_snapshot(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: IdPath,
    query: Query,
) -> Result<Json<Snapshot>, Failure> {
    query.finish()?;
    Ok(Json(snapshots::get(&shared.app, &caller, path.id("snapshot", "snapshot_id")?).await?))
}

/// Read a snapshot: a tar compressed with zstd, or a range of it. `workspace/` in it holds the files, `manifest.jsonl` at
/// its end a line for each, with the SHA-256 of what is in it.
#[utoipa::path(get, path = "/v1/snapshots/{snapshot_id}/content", operation_id = "read_snapshot", tag = "snapshots",
    params(("snapshot_id" = SnapshotId, Path),
        ("Range" = Option<String>, Header, description = "One range of bytes; with several the whole is sent."),
        ("If-Range" = Option<String>, Header, description = "The range counts only if this is still the ETag."),
        ("If-None-Match" = Option<String>, Header, description = "The bytes are sent only if the ETag is another.")),
    responses((status = 200, body = inline(FileContent), content_type = "*/*"),
        (status = 206, body = inline(FileContent), content_type = "*/*"),
        (status = 304, description = "The client has it."), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 416, body = ErrorBody)))]
pub(crate) async fn read_snapshot(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: IdPath,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    query.finish()?;
    let snapshot_id: SnapshotId = path.id("snapshot", "snapshot_id")?;
    let opened: Opened = snapshots::open(&shared.app, &caller, snapshot_id).await?;
    respond(opened, &format!("{snapshot_id}.tar.zst"), &headers).await
}

/// A snapshot that is gone.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DeletedSnapshot {
    snapshot_id: SnapshotId,
    #[schema(pattern = "^deleted$")]
    status: &'static str,
}

/// Erase a snapshot for good, also one that is still being made.
#[utoipa::path(delete, path = "/v1/snapshots/{snapshot_id}", operation_id = "delete_snapshot", tag = "snapshots",
    params(("snapshot_id" = SnapshotId, Path)),
    responses((status = 200, body = DeletedSnapshot), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn delete_snapshot(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: IdPath,
    query: Query,
) -> Result<Json<DeletedSnapshot>, Failure> {
    query.finish()?;
    let snapshot_id: SnapshotId = path.id("snapshot", "snapshot_id")?;
    snapshots::delete(&shared.app, &caller, snapshot_id).await?;
    Ok(Json(DeletedSnapshot { snapshot_id, status: "deleted" }))
}
