//! Deployments: one customer's agent each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Number;

use crate::id::{AccountId, DeploymentId, SnapshotId, ThreadId};
use crate::mcp::McpServer;
use crate::sandbox::SandboxSettings;
use crate::secret::SecretId;
use crate::time::Timestamp;
use crate::tool::ToolSetting;

/// Whether a deployment can take work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentStatus {
    Provisioning,
    Ready,
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

/// Which abilities a deployment has.
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

/// What a deployment may spend; a field that is left out does not limit it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Budget {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub max_credits_per_run: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub max_credits_per_day: Option<Number>,
}

impl Budget {
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

/// What becomes of a request to a person that nobody answers in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExpiry {
    #[default]
    Deny,
    Approve,
    Fail,
}

/// How long a request to a person waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SteeringPolicy {
    /// Seconds; `null`: for ever.
    pub expires_after_s: Option<u64>,
    pub on_expiry: OnExpiry,
}

/// Whether what a dream changed acts at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DreamingMode {
    #[default]
    Auto,
    /// A person looks at it first.
    Review,
}

/// How a deployment dreams; `features.dreaming` says whether it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Dreaming {
    pub mode: DreamingMode,
}

/// What a deployment is made of beside its scalars; stored as one JSON document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentSettings {
    pub sandbox: SandboxSettings,
    pub features: Features,
    pub metadata: BTreeMap<String, String>,
    pub mcp_servers: Vec<McpServer>,
    /// Environment-variable name to secret.
    pub secrets: BTreeMap<String, SecretId>,
    pub budget: Budget,
    pub steering: SteeringPolicy,
    pub dreaming: Dreaming,
    /// Tried in order when the model fails.
    pub fallback_models: Vec<String>,
    /// By the tool's name; a tool that is not here is as it is by default.
    pub tools: BTreeMap<String, ToolSetting>,
}

impl DeploymentSettings {
    /// Of a deployment that asks for nothing special.
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

/// Why a deployment could not be made ready: a stable code and a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeploymentError {
    pub code: String,
    pub message: String,
}

/// A deployment as the server holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    pub deployment_id: DeploymentId,
    pub account_id: AccountId,
    pub customer_id: String,
    pub name: String,
    pub model: String,
    pub system_prompt: String,
    pub status: DeploymentStatus,
    /// With the status `error`: why.
    pub error: Option<DeploymentError>,
    /// The snapshot that it begins with, until that is restored.
    pub restore_snapshot: Option<SnapshotId>,
    pub default_thread_id: ThreadId,
    /// Grows with each change of what the agent is; a run keeps to the one that it began with.
    pub version: i64,
    pub settings: DeploymentSettings,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A deployment in a list.
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

/// The only runtime there is.
pub const RUNTIME: &str = "hermes";
