//! A deployment as the API shows it.

use std::collections::BTreeMap;

use herm_app::Caller;
use herm_app::deployments::Described;
use herm_types::deployment::{
    Budget, DeploymentError, DeploymentStatus, Dreaming, Features, RUNTIME, SteeringPolicy,
};
use herm_types::mcp::McpServerItem;
use herm_types::sandbox::SandboxSettings;
use herm_types::secret::SecretId;
use herm_types::skill::SkillItem;
use herm_types::{DeploymentId, ThreadId, Timestamp};
use http::HeaderMap;
use http::header::HOST;
use serde::Serialize;

use crate::router::Shared;

/// A deployment.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Deployment)]
pub(crate) struct DeploymentView {
    deployment_id: DeploymentId,
    customer_id: String,
    name: String,
    #[schema(example = "hermes")]
    runtime: &'static str,
    status: DeploymentStatus,
    model: String,
    /// Left out for a browser token.
    #[serde(skip_serializing_if = "Option::is_none")]
    system_prompt: Option<String>,
    /// The default thread.
    thread_id: ThreadId,
    filesystem: Filesystem,
    events: EventsLink,
    sandbox: SandboxSettings,
    /// Left out for a browser token.
    #[serde(skip_serializing_if = "Option::is_none")]
    mcp_servers: Option<Vec<McpServerItem>>,
    skills: Vec<SkillItem>,
    /// Environment-variable name to secret. Left out for a browser token.
    #[serde(skip_serializing_if = "Option::is_none")]
    secrets: Option<BTreeMap<String, SecretId>>,
    features: Features,
    metadata: BTreeMap<String, String>,
    budget: Budget,
    steering: SteeringPolicy,
    dreaming: Dreaming,
    fallback_models: Vec<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// With the status `error`: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<DeploymentError>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Filesystem {
    #[schema(example = "/workspace")]
    workspace_path: &'static str,
    persistent: bool,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct EventsLink {
    #[schema(example = "sse")]
    transport: &'static str,
    /// Where the deployment's events are streamed.
    #[schema(format = "uri")]
    url: String,
}

impl DeploymentView {
    pub(crate) fn of(described: Described, shared: &Shared, headers: &HeaderMap) -> Self {
        let Described { deployment, skills } = described;
        let settings = deployment.settings;
        let url = format!("{}/v1/deployments/{}/events", base_url(shared, headers), deployment.deployment_id);
        Self {
            deployment_id: deployment.deployment_id,
            customer_id: deployment.customer_id,
            name: deployment.name,
            runtime: RUNTIME,
            status: deployment.status,
            model: deployment.model,
            system_prompt: Some(deployment.system_prompt),
            thread_id: deployment.default_thread_id,
            filesystem: Filesystem {
                workspace_path: "/workspace",
                persistent: settings.sandbox.persistent_filesystem,
            },
            events: EventsLink { transport: "sse", url },
            sandbox: settings.sandbox,
            mcp_servers: Some(settings.mcp_servers.iter().map(McpServerItem::from).collect()),
            skills,
            secrets: Some(settings.secrets),
            features: settings.features,
            metadata: settings.metadata,
            budget: settings.budget,
            steering: settings.steering,
            dreaming: settings.dreaming,
            fallback_models: settings.fallback_models,
            created_at: deployment.created_at,
            updated_at: deployment.updated_at,
            error: deployment.error,
        }
    }

    /// What of it this caller may see: a browser is not shown how the agent is made.
    pub(crate) fn shown_to(self, caller: &Caller) -> Self {
        if !caller.key().is_token() {
            return self;
        }
        Self { system_prompt: None, mcp_servers: None, secrets: None, ..self }
    }
}

/// The configured public URL, else the host the request came to.
fn base_url(shared: &Shared, headers: &HeaderMap) -> String {
    if let Some(url) = &shared.options.public_url {
        return url.clone();
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    format!("http://{host}")
}
