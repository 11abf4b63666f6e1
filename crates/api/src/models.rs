//! `/v1/models`: lists the model providers.

use axum::Json;
use axum::extract::State;
use herm_types::error::ErrorBody;
use serde::Serialize;

use crate::auth::Auth;
use crate::error::Failure;
use crate::input::Query;
use crate::state::{ApiState, ModelProvider};

/// A page of the configured model providers, and the default model.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ModelList {
    data: Vec<ModelProvider>,
    next_cursor: Option<String>,
    /// The model that a deployment uses if its creator specified none.
    #[schema(example = "anthropic/claude-sonnet-4.5")]
    default_model: String,
}

/// List the configured model providers, in the order of the configuration. The list includes providers for which no API
/// key is configured.
#[utoipa::path(get, path = "/v1/models", operation_id = "list_models", tag = "operations",
    params(("limit" = Option<u32>, Query, minimum = 1, maximum = 100), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = ModelList), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody)))]
pub(crate) async fn list_models(
    State(state): State<ApiState>,
    _caller: Auth,
    mut query: Query,
) -> Result<Json<ModelList>, Failure> {
    let page = query.page::<String>();
    let providers = &state.options.providers;
    let start = match &page.after {
        None => 0,
        Some(cursor) => match providers.iter().position(|provider| provider.provider == *cursor) {
            Some(index) => index + 1,
            None => {
                query.error("cursor", "must be the `next_cursor` of a previous page");
                0
            }
        },
    };
    query.finish()?;
    let rest = providers.iter().skip(start);
    let data: Vec<ModelProvider> = rest.take(page.limit as usize).cloned().collect();
    let is_last = start + data.len() >= providers.len();
    let next_cursor = data.last().map(|last| last.provider.clone()).filter(|_| !is_last);
    let default_model = state.app.settings().default_model.to_string();
    Ok(Json(ModelList { data, next_cursor, default_model }))
}
