//! API keys, as the API shows them: scopes and restrictions, never the secret text of the key.

use serde::{Deserialize, Serialize};

use crate::id::{AccountId, DeploymentId, KeyId};
use crate::time::Timestamp;

/// The maximum length, in characters, of the customer id to which a key is restricted. A longer id or an
/// empty one is rejected.
pub const MAX_CUSTOMER_CHARS: usize = 256;

/// A right that a key carries. Every operation requires one scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub enum Scope {
    /// Get and list deployments and everything in them, including event streams and files.
    #[serde(rename = "deployments:read")]
    DeploymentsRead,
    /// Create, update and delete deployments, send messages, and change everything in a deployment.
    #[serde(rename = "deployments:write")]
    DeploymentsWrite,
    /// List, create, update and delete secrets.
    #[serde(rename = "secrets:write")]
    SecretsWrite,
    /// Reserved for webhooks. No operation requires this scope yet.
    #[serde(rename = "webhooks:write")]
    WebhooksWrite,
    /// Reserved for usage reports. No operation requires this scope yet.
    #[serde(rename = "usage:read")]
    UsageRead,
    /// Manage API keys. Implies all other scopes.
    #[serde(rename = "admin")]
    Admin,
    /// Send messages and cancel runs. `deployments:write` implies this scope.
    #[serde(rename = "messages:send")]
    MessagesSend,
    /// Answer steering requests and delete stored approvals. `deployments:write` implies this scope.
    #[serde(rename = "steering:answer")]
    SteeringAnswer,
    /// Create, rename and delete threads. `deployments:write` implies this scope.
    #[serde(rename = "threads:write")]
    ThreadsWrite,
    /// List and read files. `deployments:read` and `deployments:write` each imply this scope.
    #[serde(rename = "files:read")]
    FilesRead,
    /// Write and delete files. `deployments:write` implies this scope.
    #[serde(rename = "files:write")]
    FilesWrite,
}

impl Scope {
    /// The scopes that an API key may carry.
    pub const FOR_API_KEYS: [Self; 6] = [
        Self::DeploymentsRead,
        Self::DeploymentsWrite,
        Self::SecretsWrite,
        Self::WebhooksWrite,
        Self::UsageRead,
        Self::Admin,
    ];

    /// The scopes that a browser token may carry. They suffice for a chat page, but none of them allows
    /// changes to the agent.
    pub const FOR_BROWSER_TOKENS: [Self; 6] = [
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
        Self::FOR_API_KEYS.into_iter().chain(Self::FOR_BROWSER_TOKENS).find(|scope| scope.as_str() == text)
    }

    /// Returns true if a key with this scope may call operations that require the scope `required`.
    pub fn implies(self, required: Self) -> bool {
        match self {
            Self::Admin => true,
            Self::DeploymentsWrite => {
                required == self
                    || (required != Self::DeploymentsRead && Self::FOR_BROWSER_TOKENS.contains(&required))
            }
            Self::DeploymentsRead => [self, Self::FilesRead].contains(&required),
            _ => self == required,
        }
    }
}

/// An API key or a browser token, without the secret text that clients send to authenticate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = Key)]
pub struct KeyInfo {
    pub key_id: KeyId,
    pub account_id: AccountId,
    pub name: String,
    pub scopes: Vec<Scope>,
    /// The only deployment that the key may access. Absent if the key is not restricted to one deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment_id: Option<DeploymentId>,
    /// The only customer whose deployments the key may access. Absent if the key is not restricted to one
    /// customer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer_id: Option<String>,
    /// The key that created this browser token. When that key expires or is revoked, the token stops working
    /// too. Absent for API keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_key_id: Option<KeyId>,
    pub created_at: Timestamp,
    /// The time at which the key stops working, or `null` if it does not expire.
    pub expires_at: Option<Timestamp>,
    /// The time at which the key was revoked, or `null` if it is not revoked.
    pub revoked_at: Option<Timestamp>,
}

impl KeyInfo {
    /// Returns true if the key is neither revoked nor expired at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    /// Returns true if this is a browser token.
    pub fn is_token(&self) -> bool {
        self.parent_key_id.is_some()
    }

    /// Returns true if one of the key's scopes equals or implies `scope`.
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|held| held.implies(scope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_implies_exactly_its_sub_scopes() {
        let implied = |scope: Scope| -> Vec<&str> {
            let all = Scope::FOR_API_KEYS.into_iter().chain(Scope::FOR_BROWSER_TOKENS);
            let mut names: Vec<&str> =
                all.filter(|required| scope.implies(*required)).map(Scope::as_str).collect();
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
    fn every_scope_round_trips_through_text() {
        for scope in Scope::FOR_API_KEYS.into_iter().chain(Scope::FOR_BROWSER_TOKENS) {
            assert_eq!(Scope::parse(scope.as_str()), Some(scope));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
        }
    }
}
