//! The sandbox settings of a deployment.

use serde::{Deserialize, Serialize};
use serde_json::Number;

/// A type of sandbox. Each type has the same name as the engine that normally creates sandboxes of this type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SandboxType {
    /// A Docker container.
    Docker,
    /// A bubblewrap sandbox on the server's machine.
    Local,
    /// A Docker container whose programs use the gVisor kernel instead of the kernel of the server's machine.
    Gvisor,
}

impl SandboxType {
    pub const ALL: [Self; 3] = [Self::Docker, Self::Local, Self::Gvisor];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Local => "local",
            Self::Gvisor => "gvisor",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// The hosts that programs in a sandbox may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EgressMode {
    /// Programs cannot reach any host.
    Deny,
    /// Programs may reach only the hosts that match a pattern in `hosts`.
    Allowlist,
    /// Programs may reach every host that has a public IP address.
    Open,
}

/// The egress settings of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Egress {
    pub mode: EgressMode,
    /// Host patterns, for example `api.example.com`, `*.example.com` or `api.example.com:8443`. Empty unless
    /// the mode is `allowlist`.
    pub hosts: Vec<String>,
}

/// The sandbox settings of a deployment, and the engine that the server selected for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSettings {
    pub enabled: bool,
    #[serde(rename = "type")]
    pub kind: SandboxType,
    pub persistent_filesystem: bool,
    /// The engine that creates the sandbox. `None` until the sandbox is first enabled, because the server
    /// selects the engine only then.
    pub engine: Option<SandboxType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The CPU limit, in cores. May be a fraction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_mb: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
}

/// The quota of a workspace if `disk_mb` is not set, in MiB.
pub const DEFAULT_DISK_MB: u64 = 10_240;

impl SandboxSettings {
    /// Returns the quota of the workspace, in bytes: `disk_mb`, or the default if it is not set.
    pub fn disk_bytes(&self) -> u64 {
        self.disk_mb.unwrap_or(DEFAULT_DISK_MB).saturating_mul(1024 * 1024)
    }

    /// Creates the default settings for a type and an engine. The sandbox is enabled if `engine` is not
    /// `None`.
    pub fn new(kind: SandboxType, engine: Option<SandboxType>) -> Self {
        Self {
            enabled: engine.is_some(),
            kind,
            persistent_filesystem: true,
            engine,
            image: None,
            cpu: None,
            memory_mb: None,
            disk_mb: None,
            idle_timeout_s: None,
            egress: None,
        }
    }
}
