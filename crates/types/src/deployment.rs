//! Deployments: agents, each dedicated to one customer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Number;

use crate::id::{AccountId, DeploymentId, SnapshotId, ThreadId};
use crate::mcp::McpServer;
use crate::sandbox::SandboxSettings;
use crate::secret::SecretId;
use crate::time::Timestamp;
use crate::tool::ToolSetting;

/// The status of a deployment. Only a `ready` one accepts messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentStatus {
    /// The container image is being pulled, or a snapshot is being restored into the workspace.
    Provisioning,
    /// The deployment accepts messages.
    Ready,
    /// Provisioning failed. `retry_deployment` starts it again.
    Error,
}

impl DeploymentStatus {
    pub const ALL: [Self; 3] = [Self::Provisioning, Self::Ready, Self::Error];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Ready => "ready",
            Self::Error => "error",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// The features that are enabled for a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Features {
    pub memory: bool,
    pub dreaming: bool,
    pub automations: bool,
    pub steering: bool,
    pub filesystem_webhooks: bool,
}

impl Default for Features {
    fn default() -> Self {
        Self { memory: true, dreaming: false, automations: true, steering: true, filesystem_webhooks: false }
    }
}

/// The maximum cost of a deployment per run and per day, in credits. An absent field means that there is no
/// limit. The server stores these limits but does not enforce them yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Budget {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub max_credits_per_run: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub max_credits_per_day: Option<Number>,
}

/// Decides what happens if nobody answers a steering request (a question, or a request for an approval) in
/// time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExpiry {
    #[default]
    Deny,
    Approve,
    Fail,
}

/// Sets how long a deployment's steering requests wait for an answer, and what happens after that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SteeringPolicy {
    /// The time in seconds after which a steering request expires, or `null` if it never expires.
    pub expires_after_s: Option<u64>,
    pub on_expiry: OnExpiry,
}

/// Decides when the memory changes that a dream proposes take effect. A dream is a job that tidies the
/// memories of an idle deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DreamingMode {
    #[default]
    Auto,
    /// The changes take effect after a person has reviewed them.
    Review,
}

/// The dreaming settings of a deployment. They have an effect only if `features.dreaming` is true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Dreaming {
    pub mode: DreamingMode,
}

/// Those settings of a deployment that the database stores together in one JSON document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentSettings {
    pub sandbox: SandboxSettings,
    pub features: Features,
    pub metadata: BTreeMap<String, String>,
    pub mcp_servers: Vec<McpServer>,
    /// Maps environment variable names to secret ids. In the sandbox, each variable contains a random text,
    /// which the egress proxy replaces with the secret's value in requests to allowed hosts.
    pub secrets: BTreeMap<String, SecretId>,
    pub budget: Budget,
    pub steering: SteeringPolicy,
    pub dreaming: Dreaming,
    /// Fallback models, as `provider/model`, in the order in which they are tried if the primary model fails.
    pub fallback_models: Vec<String>,
    /// Maps tool names to settings. A tool without an entry has its default settings.
    pub tools: BTreeMap<String, ToolSetting>,
}

impl DeploymentSettings {
    /// Creates settings with the given sandbox settings and the default value of every other field.
    pub fn new(sandbox: SandboxSettings) -> Self {
        Self {
            sandbox,
            features: Features::default(),
            metadata: BTreeMap::new(),
            mcp_servers: Vec::new(),
            secrets: BTreeMap::new(),
            budget: Budget::default(),
            steering: SteeringPolicy::default(),
            dreaming: Dreaming::default(),
            fallback_models: Vec::new(),
            tools: BTreeMap::new(),
        }
    }
}

/// The error with which provisioning failed: a stable code and a human-readable explanation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeploymentError {
    pub code: String,
    pub message: String,
}

/// A deployment, as the database stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    pub deployment_id: DeploymentId,
    pub account_id: AccountId,
    pub customer_id: String,
    pub name: String,
    pub model: String,
    pub system_prompt: String,
    pub status: DeploymentStatus,
    /// The error with which provisioning failed. `None` unless the status is `error`.
    pub error: Option<DeploymentError>,
    /// The snapshot that provisioning has yet to restore into the workspace. `None` if there is nothing to
    /// restore.
    pub restore_snapshot: Option<SnapshotId>,
    pub default_thread_id: ThreadId,
    /// The version, incremented by each change of the agent's model, prompt or settings. Until a run ends, it
    /// uses the version with which it started.
    pub version: i64,
    pub settings: DeploymentSettings,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A row in a list of deployments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct DeploymentItem {
    pub deployment_id: DeploymentId,
    pub customer_id: String,
    pub name: String,
    pub runtime: &'static str,
    pub status: DeploymentStatus,
    pub model: String,
    pub created_at: Timestamp,
}

/// The only supported value of a deployment's `runtime` field: the name of the agent harness.
pub const RUNTIME: &str = "hermes";
