//! The settings of the API, and the state that handlers and middleware share.

use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};

use axum::extract::FromRef;
use herm_app::App;
use serde::Serialize;

use crate::cors::CorsOrigins;
use crate::rate_limit::limits::RateLimits;

/// The default maximum size of a JSON request body, in bytes. A larger body is rejected with 413.
const DEFAULT_MAX_JSON_BYTES: usize = 1024 * 1024;

/// The operator's settings for the HTTP API.
#[derive(Clone, Debug)]
pub struct Options {
    /// The base of absolute URLs in responses, without a trailing `/`. If `None`, URLs are built from the request's
    /// `Host` header.
    pub public_url: Option<String>,
    /// The maximum size of a JSON request body, in bytes. A larger body is rejected with 413.
    pub max_json_bytes: usize,
    /// The maximum number of reads, and separately of writes, per second for each API key. Further requests are
    /// rejected with 429. `None` means no limit.
    pub rate_limit: Option<NonZeroU32>,
    /// The origins whose scripts may call the API.
    pub cors: CorsOrigins,
    /// The configured model providers, in the order in which the API lists them.
    pub providers: Vec<ModelProvider>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            public_url: None,
            max_json_bytes: DEFAULT_MAX_JSON_BYTES,
            rate_limit: None,
            cors: CorsOrigins::None,
            providers: Vec::new(),
        }
    }
}

/// The state that handlers and middleware share.
#[derive(Clone)]
pub(crate) struct ApiState {
    pub(crate) app: App,
    pub(crate) options: Arc<Options>,
    pub(crate) rate_limits: Option<Arc<RateLimits>>,
    /// The OpenAPI document as JSON, which is generated when a client first requests it.
    pub(crate) openapi: Arc<LazyLock<String, Box<dyn FnOnce() -> String + Send>>>,
}

impl FromRef<ApiState> for App {
    fn from_ref(state: &ApiState) -> Self {
        state.app.clone()
    }
}

/// A model provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ModelProvider {
    /// The name of the provider. It is the prefix of the names of the provider's models.
    #[schema(example = "anthropic")]
    pub provider: String,
    /// The names of known models of the provider, as `provider/model`. Other models of the provider can be used too.
    #[schema(example = json!(["anthropic/claude-sonnet-4.5"]))]
    pub models: Vec<String>,
    /// True if the provider can be used: the operator has configured an API key for it, or it needs none.
    pub has_key: bool,
}
