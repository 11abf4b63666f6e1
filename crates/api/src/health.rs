//! Whether the server lives, and whether it takes requests.

use axum::Json;
use axum::extract::State;
use herm_app::App;
use herm_types::{Error, ErrorCode};
use serde::Serialize;

use crate::error::Failure;

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Health {
    #[schema(example = "ok")]
    status: &'static str,
}

/// The server lives.
#[utoipa::path(get, path = "/healthz", operation_id = "get_health", tag = "operations", security(()),
    responses((status = 200, body = Health)))]
pub(crate) async fn get_health() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// The server takes requests: its database answers and it is not stopping.
#[utoipa::path(get, path = "/readyz", operation_id = "get_readiness", tag = "operations", security(()),
    responses((status = 200, body = Health), (status = 503, body = herm_types::error::ErrorBody)))]
pub(crate) async fn get_readiness(State(app): State<App>) -> Result<Json<Health>, Failure> {
    if app.is_ready().await {
        return Ok(Json(Health { status: "ok" }));
    }
    Err(Error::new(ErrorCode::Unavailable, "The server is stopping, or its database is away.").into())
}
