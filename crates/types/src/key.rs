//! API keys as their account sees them: what a key may do, never the key itself.

use serde::{Deserialize, Serialize};

use crate::id::{AccountId, DeploymentId, KeyId};
use crate::time::Timestamp;

/// A power that a key carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub enum Scope {
    /// Get, list, stream, read files.
    #[serde(rename = "deployments:read")]
    DeploymentsRead,
    /// Create, update, delete, send, and every change below a deployment.
    #[serde(rename = "deployments:write")]
    DeploymentsWrite,
    #[serde(rename = "secrets:write")]
    SecretsWrite,
    #[serde(rename = "webhooks:write")]
    WebhooksWrite,
    #[serde(rename = "usage:read")]
    UsageRead,
    /// Keys and credits; implies all others.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    pub const ALL: [Self; 6] = [
        Self::DeploymentsRead,
        Self::DeploymentsWrite,
        Self::SecretsWrite,
        Self::WebhooksWrite,
        Self::UsageRead,
        Self::Admin,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeploymentsRead => "deployments:read",
            Self::DeploymentsWrite => "deployments:write",
            Self::SecretsWrite => "secrets:write",
            Self::WebhooksWrite => "webhooks:write",
            Self::UsageRead => "usage:read",
            Self::Admin => "admin",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }
}

/// A key as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyInfo {
    pub key_id: KeyId,
    pub account_id: AccountId,
    pub name: String,
    pub scopes: Vec<Scope>,
    /// The one deployment it is limited to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment_id: Option<DeploymentId>,
    /// The one customer it is limited to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer_id: Option<String>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

impl KeyInfo {
    /// Whether it opens anything at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&Scope::Admin) || self.scopes.contains(&scope)
    }
}
