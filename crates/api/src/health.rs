//! Whether the server lives, and whether it takes requests.

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

/// The server lives.
#[utoipa::path(get, path = "/healthz", operation_id = "get_health", tag = "operations", security(()),
    responses((status = 200, body = Health), (status = 400, body = ErrorBody)))]
pub(crate) async fn get_health(query: Query) -> Result<Json<Health>, Failure> {
    query.finish()?;
    Ok(Json(Health { status: "ok" }))
}

/// The server takes requests: its database answers and it is not stopping.
#[utoipa::path(get, path = "/readyz", operation_id = "get_readiness", tag = "operations", security(()),
    responses((status = 200, body = Health), (status = 400, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn get_readiness(State(app): State<App>, query: Query) -> Result<Json<Health>, Failure> {
    query.finish()?;
    if app.is_ready().await {
        return Ok(Json(Health { status: "ok" }));
    }
    Err(Error::new(ErrorCode::Unavailable, "The server is stopping, or its database is away.").into())
}
