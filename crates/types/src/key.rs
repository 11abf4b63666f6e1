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
    /// Of browser tokens, as the next four; `deployments:write` implies them all.
    #[serde(rename = "messages:send")]
    MessagesSend,
    #[serde(rename = "steering:answer")]
    SteeringAnswer,
    #[serde(rename = "threads:write")]
    ThreadsWrite,
    /// `deployments:read` implies it too.
    #[serde(rename = "files:read")]
    FilesRead,
    #[serde(rename = "files:write")]
    FilesWrite,
}

impl Scope {
    /// What an API key may carry.
    pub const OF_KEYS: [Self; 6] = [
        Self::DeploymentsRead,
        Self::DeploymentsWrite,
        Self::SecretsWrite,
        Self::WebhooksWrite,
        Self::UsageRead,
        Self::Admin,
    ];

    /// What a browser token may carry: enough to chat, nothing that changes the agent.
    pub const OF_TOKENS: [Self; 6] = [
        Self::MessagesSend,
        Self::SteeringAnswer,
        Self::ThreadsWrite,
        Self::FilesRead,
        Self::FilesWrite,
        Self::DeploymentsRead,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeploymentsRead => "deployments:read",
            Self::DeploymentsWrite => "deployments:write",
            Self::SecretsWrite => "secrets:write",
            Self::WebhooksWrite => "webhooks:write",
            Self::UsageRead => "usage:read",
            Self::Admin => "admin",
            Self::MessagesSend => "messages:send",
            Self::SteeringAnswer => "steering:answer",
            Self::ThreadsWrite => "threads:write",
            Self::FilesRead => "files:read",
            Self::FilesWrite => "files:write",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::OF_KEYS.into_iter().chain(Self::OF_TOKENS).find(|scope| scope.as_str() == text)
    }

    /// Whether who has this scope may do what `wanted` allows.
    pub fn implies(self, wanted: Self) -> bool {
        match self {
            Self::Admin => true,
            Self::DeploymentsWrite => {
                wanted == self || (wanted != Self::DeploymentsRead && Self::OF_TOKENS.contains(&wanted))
            }
            Self::DeploymentsRead => [self, Self::FilesRead].contains(&wanted),
            _ => self == wanted,
        }
    }
}

/// A key as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = Key)]
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
    /// Of a browser token: the key that minted it, and that it ends with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_key_id: Option<KeyId>,
    pub created_at: Timestamp,
    /// `null`: never.
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

impl KeyInfo {
    /// Whether it opens anything at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    /// Whether it is a browser token.
    pub fn is_token(&self) -> bool {
        self.parent_key_id.is_some()
    }

    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|held| held.implies(scope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_implies_what_lies_below_it_and_nothing_else() {
        let implied = |scope: Scope| -> Vec<&str> {
            let all = Scope::OF_KEYS.into_iter().chain(Scope::OF_TOKENS);
            let mut names: Vec<&str> =
                all.filter(|wanted| scope.implies(*wanted)).map(Scope::as_str).collect();
            names.sort_unstable();
            names.dedup();
            names
        };
        assert_eq!(implied(Scope::DeploymentsRead), ["deployments:read", "files:read"]);
        assert_eq!(
            implied(Scope::DeploymentsWrite),
            [
                "deployments:write",
                "files:read",
                "files:write",
                "messages:send",
                "steering:answer",
                "threads:write"
            ]
        );
        assert_eq!(implied(Scope::MessagesSend), ["messages:send"]);
        assert_eq!(implied(Scope::SecretsWrite), ["secrets:write"]);
        assert_eq!(implied(Scope::Admin).len(), 11);
    }

    #[test]
    fn every_scope_is_read_as_it_is_written() {
        for scope in Scope::OF_KEYS.into_iter().chain(Scope::OF_TOKENS) {
            assert_eq!(Scope::parse(scope.as_str()), Some(scope));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
        }
    }
}
