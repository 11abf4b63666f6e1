//! Every route, and what all of them share.

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

/// What an operator decides about the HTTP side.
#[derive(Clone, Debug)]
pub struct Options {
    /// Prefix of absolute URLs, without a last `/`; `None`: the request's own host.
    pub public_url: Option<String>,
    /// The most bytes of a JSON body.
    pub max_json_bytes: usize,
    /// Requests a second for each key; `None`: any number.
    pub rate_limit: Option<NonZeroU32>,
    /// Whose scripts may call the API.
    pub cors: CorsOrigins,
    /// Whose models may be named, in the order in which they are listed.
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

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) app: App,
    pub(crate) options: Arc<Options>,
    pub(crate) rate_limits: Option<Arc<RateLimits>>,
}

impl FromRef<Shared> for App {
    fn from_ref(shared: &Shared) -> Self {
        shared.app.clone()
    }
}

/// The whole API.
pub fn router(app: App, options: Options) -> Router {
    let rate_limits = options.rate_limit.map(|limit| Arc::new(RateLimits::new(limit)));
    let shared = Shared { app, options: Arc::new(options), rate_limits };
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
        // Of what follows, each goes around all that stands before it.
        .route_layer(from_fn_with_state(shared.clone(), idempotency::layer))
        .layer(from_fn_with_state(shared.clone(), rate_limit::layer))
        .layer(from_fn(target::layer))
        .layer(from_fn(request_id::layer))
        .with_state(shared.clone());
    // Around a router that is whole: the header Allow, which a preflight's answer is made of, is set last.
    Router::new().fallback_service(routes).layer(from_fn_with_state(shared.options, cors::layer))
}
