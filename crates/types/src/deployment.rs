//! Deployments: one customer's agent each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{AccountId, DeploymentId, ThreadId};
use crate::time::Timestamp;

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

/// The kind of sandbox a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SandboxType {
    Docker,
    Local,
}

/// A deployment's sandbox: what was asked for, and the engine that was chosen when it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SandboxSettings {
    pub enabled: bool,
    #[serde(rename = "type")]
    pub kind: SandboxType,
    pub persistent_filesystem: bool,
    /// The engine that is really used; `null` when the sandbox is not enabled.
    pub engine: Option<SandboxType>,
}

/// What a deployment is made of beside its scalars; stored as one JSON document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentSettings {
    pub sandbox: SandboxSettings,
    pub features: Features,
    pub metadata: BTreeMap<String, String>,
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
    pub default_thread_id: ThreadId,
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
