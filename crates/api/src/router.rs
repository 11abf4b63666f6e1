//! The routes of the API and the middleware around them.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use herm_app::App;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::openapi::Document;
use crate::rate_limit::limits::RateLimits;
use crate::state::{ApiState, Options};
use crate::{
    cors, deployments, events, files, health, idempotency, keys, mcp_servers, messages, models, openapi,
    rate_limit, request_id, runs, secrets, skills, snapshots, steering, target, threads, tokens, tools,
};

/// Returns the routes of all operations. The path and the method of an operation come from the annotation of its
/// handler. Handlers in one `routes!` have the same path.
#[expect(
    clippy::cognitive_complexity,
    reason = "`routes!` expands to much code, but this function is a list"
)]
fn operations() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(deployments::list_deployments, deployments::create_deployment))
        .routes(routes!(
            deployments::get_deployment,
            deployments::update_deployment,
            deployments::delete_deployment
        ))
        .routes(routes!(deployments::retry_deployment))
        .routes(routes!(messages::send_message))
        .routes(routes!(events::stream_events))
        .routes(routes!(threads::list_threads, threads::create_thread))
        .routes(routes!(threads::get_thread, threads::update_thread, threads::delete_thread))
        .routes(routes!(runs::list_runs))
        .routes(routes!(runs::get_run))
        .routes(routes!(runs::list_steps))
        .routes(routes!(runs::cancel_run))
        .routes(routes!(steering::list_all_steering))
        .routes(routes!(steering::list_steering))
        .routes(routes!(steering::get_steering, steering::answer_steering))
        .routes(routes!(steering::list_approvals, steering::delete_approvals))
        .routes(routes!(steering::delete_approval))
        .routes(routes!(skills::list_skills, skills::add_skill))
        .routes(routes!(skills::get_skill, skills::replace_skill, skills::delete_skill))
        .routes(routes!(mcp_servers::list_mcp_servers, mcp_servers::add_mcp_server))
        .routes(routes!(mcp_servers::update_mcp_server, mcp_servers::delete_mcp_server))
        .routes(routes!(tools::list_tools))
        .routes(routes!(tools::update_tool))
        .routes(routes!(files::list_files, files::write_file, files::delete_file))
        .routes(routes!(files::content::read_file))
        .routes(routes!(models::list_models))
        .routes(routes!(keys::list_keys, keys::create_key))
        .routes(routes!(keys::revoke_key))
        .routes(routes!(tokens::create_token))
        .routes(routes!(secrets::list_secrets, secrets::create_secret))
        .routes(routes!(secrets::update_secret, secrets::delete_secret))
        .routes(routes!(snapshots::list_snapshots))
        .routes(routes!(snapshots::get_snapshot, snapshots::delete_snapshot))
        .routes(routes!(snapshots::read_snapshot))
        .routes(routes!(health::get_health))
        .routes(routes!(health::get_readiness))
        .routes(routes!(openapi::get_openapi))
}

/// Returns the OpenAPI 3.1 document as JSON, indented by two spaces, with a trailing newline.
pub fn openapi_document() -> String {
    openapi::complete(operations().into_openapi())
}

/// Builds the router of the whole API.
pub fn router(app: App, options: Options) -> Router {
    let rate_limits = options.rate_limit.map(|limit| Arc::new(RateLimits::new(limit)));
    let cors_origins = Arc::new(options.cors.clone());
    let (routes, document) = operations().split_for_parts();
    let document: Box<dyn FnOnce() -> String + Send> = Box::new(|| openapi::complete(document));
    let openapi = Arc::new(LazyLock::new(document));
    let state = ApiState { app, options: Arc::new(options), rate_limits, openapi };
    let routes = routes
        // The layer that is added last is the outermost. A request therefore passes through these layers from the
        // bottom to the top: request id, target, rate limit, idempotency.
        .route_layer(from_fn_with_state(state.clone(), idempotency::layer))
        .layer(from_fn_with_state(state.clone(), rate_limit::layer))
        .layer(from_fn(target::layer))
        .layer(from_fn(request_id::layer))
        .with_state(state);
    // The CORS layer must wrap the complete router. It builds preflight responses from the Allow header, which the
    // inner router adds only after all of its own layers have run.
    Router::new().fallback_service(routes).layer(from_fn_with_state(cors_origins, cors::layer))
}
