//! `/v1/models`.

use axum::Json;
use axum::extract::State;
use herm_types::error::ErrorBody;
use serde::Serialize;

use crate::auth::Auth;
use crate::error::Failure;
use crate::input::Query;
use crate::router::Shared;

/// A provider of models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ModelProvider {
    /// What its models' names begin with.
    #[schema(example = "anthropic")]
    pub provider: String,
    /// Models that are known by name, whole as `model` takes them. Any other that the provider has may be named too.
    #[schema(example = json!(["anthropic/claude-sonnet-4.5"]))]
    pub models: Vec<String>,
    /// Whether it can be called: its key is there, or it needs none.
    pub has_key: bool,
}

/// What `model` may be.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ModelList {
    data: Vec<ModelProvider>,
    next_cursor: Option<String>,
    /// The model of deployments that name none.
    #[schema(example = "anthropic/claude-sonnet-4.5")]
    default_model: String,
}

/// List the providers whose models a deployment may name, with or without a key, in the order of the configuration.
#[utoipa::path(get, path = "/v1/models", operation_id = "list_models", tag = "operations",
    params(("limit" = Option<u32>, Query, minimum = 1, maximum = 100), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = ModelList), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody)))]
pub(crate) async fn list_models(
    State(shared): State<Shared>,
    _caller: Auth,
    mut query: Query,
) -> Result<Json<ModelList>, Failure> {
    let page = query.page::<String>();
    let providers = &shared.options.providers;
    let begin = match &page.after {
        None => 0,
        Some(cursor) => match providers.iter().position(|known| known.provider == *cursor) {
            Some(place) => place + 1,
            None => {
                query.fault("cursor", "is not a cursor that this list gave");
                0
            }
        },
    };
    query.finish()?;
    let rest = providers.iter().skip(begin);
    let data: Vec<ModelProvider> = rest.take(page.limit as usize).cloned().collect();
    let is_last = begin + data.len() >= providers.len();
    let next_cursor = data.last().map(|last| last.provider.clone()).filter(|_| !is_last);
    let default_model = shared.app.settings().default_model.to_string();
    Ok(Json(ModelList { data, next_cursor, default_model }))
}
