//! A deployment's sandbox, as it was asked for.

use serde::{Deserialize, Serialize};
use serde_json::Number;

/// The kind of sandbox a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SandboxType {
    /// A container of a Docker engine.
    Docker,
    /// Bubblewrap on the server's machine.
    Local,
    /// A container of a Docker engine, with gVisor as its kernel.
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

/// What a sandbox may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EgressMode {
    /// Nothing.
    Deny,
    /// The hosts that are listed.
    Allowlist,
    /// Every public address.
    Open,
}

/// A sandbox's way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Egress {
    pub mode: EgressMode,
    /// Hosts as a secret's `allowed_hosts` has them: `api.example.com`, `*.example.com`, each with a port or without.
    /// Only with `allowlist`.
    pub hosts: Vec<String>,
}

/// A deployment's sandbox: what was asked for, and the engine that was chosen when it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSettings {
    pub enabled: bool,
    #[serde(rename = "type")]
    pub kind: SandboxType,
    pub persistent_filesystem: bool,
    /// The engine that is really used; `null` when the sandbox is not enabled.
    pub engine: Option<SandboxType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Cores.
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

/// MiB that a workspace may hold if its deployment says nothing else.
pub const DEFAULT_DISK_MB: u64 = 10_240;

impl SandboxSettings {
    /// Bytes that a workspace may hold.
    pub fn disk_bytes(&self) -> u64 {
        self.disk_mb.unwrap_or(DEFAULT_DISK_MB).saturating_mul(1024 * 1024)
    }

    /// Nothing special.
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
