//! The routes of the API, the middleware around them, and the state that handlers share.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{delete, get, patch, post};
use herm_app::App;

use crate::cors::{self, CorsOrigins};
use crate::input::DEFAULT_MAX_JSON_BYTES;
use crate::models::{self, ModelProvider};
use crate::rate_limit::{self, RateLimits};
use crate::{
    deployments, events, files, health, idempotency, keys, mcp_servers, messages, openapi, request_id, runs,
    secrets, skills, snapshots, steering, target, threads, tokens, tools,
};

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
}

impl FromRef<ApiState> for App {
    fn from_ref(state: &ApiState) -> Self {
        state.app.clone()
    }
}

/// Builds the router of the whole API.
pub fn router(app: App, options: Options) -> Router {
    let rate_limits = options.rate_limit.map(|limit| Arc::new(RateLimits::new(limit)));
    let state = ApiState { app, options: Arc::new(options), rate_limits };
    let deployment = Router::new()
        .route(
            "/",
            get(deployments::get_deployment)
                .patch(deployments::update_deployment)
                .delete(deployments::delete_deployment),
        )
        .route("/retry", post(deployments::retry_deployment))
        .route("/messages", post(messages::send_message))
        .route("/events", get(events::stream_events))
        .route("/threads", get(threads::list_threads).post(threads::create_thread))
        .route(
            "/threads/{thread_id}",
            get(threads::get_thread).patch(threads::update_thread).delete(threads::delete_thread),
        )
        .route("/runs", get(runs::list_runs))
        .route("/runs/{run_id}", get(runs::get_run))
        .route("/runs/{run_id}/steps", get(runs::list_steps))
        .route("/runs/{run_id}/cancel", post(runs::cancel_run))
        .route("/steering", get(steering::list_steering))
        .route("/steering/{steering_id}", get(steering::get_steering).post(steering::answer_steering))
        .route("/approvals", get(steering::list_approvals).delete(steering::delete_approvals))
        .route("/approvals/{approval_id}", delete(steering::delete_approval))
        .route("/skills", get(skills::list_skills).post(skills::add_skill))
        .route(
            "/skills/{skill_id}",
            get(skills::get_skill).put(skills::replace_skill).delete(skills::delete_skill),
        )
        .route("/mcp_servers", get(mcp_servers::list_mcp_servers).post(mcp_servers::add_mcp_server))
        .route(
            "/mcp_servers/{name}",
            patch(mcp_servers::update_mcp_server).delete(mcp_servers::delete_mcp_server),
        )
        .route("/tools", get(tools::list_tools))
        .route("/tools/{name}", patch(tools::update_tool))
        .route("/files", get(files::list_files).put(files::write_file).delete(files::delete_file))
        .route("/files/content", get(files::content::read_file));
    let routes = Router::new()
        .route("/v1/deployments", get(deployments::list_deployments).post(deployments::create_deployment))
        .nest("/v1/deployments/{deployment_id}", deployment)
        .route("/v1/models", get(models::list_models))
        .route("/v1/keys", get(keys::list_keys).post(keys::create_key))
        .route("/v1/keys/{key_id}", delete(keys::revoke_key))
        .route("/v1/tokens", post(tokens::create_token))
        .route("/v1/secrets", get(secrets::list_secrets).post(secrets::create_secret))
        .route("/v1/secrets/{secret_id}", patch(secrets::update_secret).delete(secrets::delete_secret))
        .route("/v1/steering", get(steering::list_all_steering))
        .route("/v1/snapshots", get(snapshots::list_snapshots))
        .route("/v1/snapshots/{snapshot_id}", get(snapshots::get_snapshot).delete(snapshots::delete_snapshot))
        .route("/v1/snapshots/{snapshot_id}/content", get(snapshots::read_snapshot))
        .route("/healthz", get(health::get_health))
        .route("/readyz", get(health::get_readiness))
        .route("/openapi.json", get(openapi::get_openapi))
        // The layer that is added last is the outermost. A request therefore passes through these layers from the
        // bottom to the top: request id, target, rate limit, idempotency.
        .route_layer(from_fn_with_state(state.clone(), idempotency::layer))
        .layer(from_fn_with_state(state.clone(), rate_limit::layer))
        .layer(from_fn(target::layer))
        .layer(from_fn(request_id::layer))
        .with_state(state.clone());
    // The CORS layer must wrap the complete router. It builds preflight responses from the Allow header, which the
    // inner router adds only after all of its own layers have run.
    Router::new().fallback_service(routes).layer(from_fn_with_state(state.options, cors::layer))
}
