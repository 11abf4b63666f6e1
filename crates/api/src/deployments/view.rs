//! The JSON representation of a deployment in responses.

use std::collections::BTreeMap;

use herm_app::Caller;
use herm_app::deployments::DeploymentDetails;
use herm_types::deployment::{
    Budget, DeploymentError, DeploymentStatus, Dreaming, Features, RUNTIME, SteeringPolicy,
};
use herm_types::mcp::McpServerItem;
use herm_types::sandbox::{Egress, SandboxSettings, SandboxType};
use herm_types::secret::SecretId;
use herm_types::skill::SkillItem;
use herm_types::{DeploymentId, ThreadId, Timestamp};
use http::HeaderMap;
use http::header::HOST;
use serde::Serialize;
use serde_json::Number;

use crate::state::ApiState;

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
    /// Absent if the caller uses a browser token.
    #[serde(skip_serializing_if = "Option::is_none")]
    system_prompt: Option<String>,
    /// The id of the deployment's default thread.
    thread_id: ThreadId,
    filesystem: Filesystem,
    events: EventsLink,
    sandbox: SandboxView,
    /// Absent if the caller uses a browser token.
    #[serde(skip_serializing_if = "Option::is_none")]
    mcp_servers: Option<Vec<McpServerItem>>,
    skills: Vec<SkillItem>,
    /// Maps environment variable names to secret ids. Absent if the caller uses a browser token.
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
    /// The error with which provisioning failed. Absent unless the status is `error`.
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
    /// The URL of the deployment's event stream.
    #[schema(format = "uri")]
    url: String,
}

/// The sandbox of a deployment: the requested settings, the engine that the server selected, and the isolation that the
/// engine provides.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = SandboxSettings)]
pub(crate) struct SandboxView {
    enabled: bool,
    #[serde(rename = "type")]
    kind: SandboxType,
    persistent_filesystem: bool,
    /// The engine that the server selected. `null` until the sandbox is first enabled.
    engine: Option<SandboxType>,
    /// True if the sandbox runs as an operating system user that no other sandbox uses. False if it runs as the
    /// server's own user, which other sandboxes may use too. `null` if the sandbox is not enabled.
    own_user: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    /// The CPU limit, in cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    cpu: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_mb: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_mb: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_timeout_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress: Option<Egress>,
}

impl SandboxView {
    fn new(settings: SandboxSettings, own_user: Option<bool>) -> Self {
        Self {
            enabled: settings.enabled,
            kind: settings.kind,
            persistent_filesystem: settings.persistent_filesystem,
            engine: settings.engine,
            own_user,
            image: settings.image,
            cpu: settings.cpu,
            memory_mb: settings.memory_mb,
            disk_mb: settings.disk_mb,
            idle_timeout_s: settings.idle_timeout_s,
            egress: settings.egress,
        }
    }
}

impl DeploymentView {
    pub(crate) fn new(described: DeploymentDetails, state: &ApiState, headers: &HeaderMap) -> Self {
        let DeploymentDetails { deployment, skills, own_user } = described;
        let settings = deployment.settings;
        let url = format!("{}/v1/deployments/{}/events", base_url(state, headers), deployment.deployment_id);
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
            sandbox: SandboxView::new(settings.sandbox, own_user),
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

    /// Removes the prompt, the MCP servers and the secrets if the caller uses a browser token. Browser users must not
    /// see the agent's configuration.
    pub(crate) fn redacted_for(self, caller: &Caller) -> Self {
        if !caller.key().is_token() {
            return self;
        }
        Self { system_prompt: None, mcp_servers: None, secrets: None, ..self }
    }
}

/// Returns the base URL for the absolute URLs in a response: the configured public URL, or `http://` followed by the
/// request's `Host` header if no public URL is configured.
fn base_url(state: &ApiState, headers: &HeaderMap) -> String {
    if let Some(url) = &state.options.public_url {
        return url.clone();
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    format!("http://{host}")
}
