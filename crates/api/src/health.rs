//! `/healthz` and `/readyz`: liveness and readiness checks.

use axum::Json;
use axum::extract::State;
use herm_app::App;
use herm_types::error::ErrorBody;
use herm_types::{Error, ErrorCode};
use serde::Serialize;

use crate::error::Failure;
use crate::input::Query;

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Health {
    #[schema(example = "ok")]
    status: &'static str,
}

/// Check that the server is running.
#[utoipa::path(get, path = "/healthz", operation_id = "get_health", tag = "operations", security(()),
    responses((status = 200, body = Health), (status = 400, body = ErrorBody)))]
pub(crate) async fn get_health(query: Query) -> Result<Json<Health>, Failure> {
    query.finish()?;
    Ok(Json(Health { status: "ok" }))
}

/// Check that the server accepts requests. If the database is unreachable or the server is shutting down, the response
/// is 503.
#[utoipa::path(get, path = "/readyz", operation_id = "get_readiness", tag = "operations", security(()),
    responses((status = 200, body = Health), (status = 400, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn get_readiness(State(app): State<App>, query: Query) -> Result<Json<Health>, Failure> {
    query.finish()?;
    if app.is_ready().await {
        return Ok(Json(Health { status: "ok" }));
    }
    Err(Error::new(
        ErrorCode::Unavailable,
        "The server is shutting down, or its database is unavailable; try again in a moment.",
    )
    .into())
}
