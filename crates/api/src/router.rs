//! Every route, and what all of them share.

use axum::Router;
use axum::extract::FromRef;
use axum::middleware::from_fn;
use axum::routing::{get, patch, post};
use herm_app::App;
use std::sync::Arc;

use crate::{
    deployments, events, files, health, mcp_servers, messages, openapi, request_id, runs, skills, threads,
    tools,
};

/// What an operator decides about the HTTP side.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Prefix of absolute URLs, without a last `/`; `None`: the request's own host.
    pub public_url: Option<String>,
}

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) app: App,
    pub(crate) options: Arc<Options>,
}

impl FromRef<Shared> for App {
    fn from_ref(shared: &Shared) -> Self {
        shared.app.clone()
    }
}

/// The whole API.
pub fn router(app: App, options: Options) -> Router {
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
    Router::new()
        .route("/v1/deployments", get(deployments::list_deployments).post(deployments::create_deployment))
        .nest("/v1/deployments/{deployment_id}", deployment)
        .route("/healthz", get(health::get_health))
        .route("/readyz", get(health::get_readiness))
        .route("/openapi.json", get(openapi::get_openapi))
        .layer(from_fn(request_id::layer))
        .with_state(Shared { app, options: Arc::new(options) })
}
