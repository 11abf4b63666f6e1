//! Decides whether a program in a sandbox may reach a host, which IP addresses of the host it may connect to, and which
//! secrets the host may receive.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use herm_types::sandbox::EgressMode;
use tokio::time::timeout;

use crate::dial::MAX_ADDRESSES;
use crate::egress::ProxyState;
use crate::error::ProxyError;
use crate::owner::{Attempt, Owner, RecordId, Unavailable, Verdict};
use crate::policy::Policy;
use crate::record::Record;
use crate::target::Target;
use crate::values::SecretValue;

/// The maximum time to resolve a host name. If it takes longer, the request fails.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The context in which a program's connection is served: the [`Owner`] (the sandbox's deployment), the program's proxy
/// user name and the proxy's shared state.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) state: Arc<ProxyState>,
    pub(crate) owner: Arc<dyn Owner>,
    pub(crate) user: Option<String>,
}

impl Session {
    /// Returns the current policy if it allows this host. Otherwise records a denied attempt and returns the error
    /// for the program.
    pub(crate) async fn policy_for(&self, target: &Target) -> Result<Policy, ProxyError> {
        let policy = self.owner.policy().await?;
        let is_listed = || policy.hosts.iter().any(|host| host.matches(target.name(), target.port()));
        let reason = match policy.mode {
            EgressMode::Open => return Ok(policy),
            EgressMode::Allowlist if is_listed() => return Ok(policy),
            EgressMode::Allowlist => {
                format!("{target} is not on the allowlist of this sandbox")
            }
            EgressMode::Deny => format!("this sandbox has no network access, so {target} is denied"),
        };
        Err(self.deny(target, reason).await)
    }

    /// Returns those IP addresses of the host that the sandbox may reach. Connections must be made to exactly these
    /// addresses, because resolving the name again could return different ones (DNS rebinding).
    pub(crate) async fn resolve_allowed(&self, target: &Target) -> Result<Vec<SocketAddr>, ProxyError> {
        let found = match target.address() {
            Some(address) => vec![address],
            None => match self.resolve(target).await {
                Ok(found) => found,
                Err(error) => {
                    // Record even a failed lookup as an attempt, because a DNS lookup can carry data to the host's DNS
                    // server.
                    self.record_allowed(target).await?.fail(&error);
                    return Err(error);
                }
            },
        };
        let reachable: Vec<SocketAddr> = found
            .into_iter()
            .filter(|address| self.state.allowed.allows(target.name(), *address))
            .take(MAX_ADDRESSES)
            .map(|address| SocketAddr::new(address, target.port()))
            .collect();
        if reachable.is_empty() {
            let reason = format!(
                "{target} has a private address, which the operator has not allowed sandboxes to reach"
            );
            return Err(self.deny(target, reason).await);
        }
        Ok(reachable)
    }

    async fn resolve(&self, target: &Target) -> Result<Vec<IpAddr>, ProxyError> {
        let host = target.bare_name();
        let found = timeout(RESOLVE_TIMEOUT, self.state.resolver.resolve(host)).await.map_err(|_| {
            ProxyError::Timeout { target: target.clone(), seconds: RESOLVE_TIMEOUT.as_secs() }
        })?;
        let found = found.ok().filter(|addresses| !addresses.is_empty());
        found.ok_or_else(|| ProxyError::NotFound { host: host.to_owned() })
    }

    /// Returns the secrets that may be sent to this host, with their values.
    pub(crate) async fn values(
        &self,
        policy: &Policy,
        target: &Target,
    ) -> Result<Vec<SecretValue>, ProxyError> {
        let mut secrets = Vec::new();
        for secret in policy.secrets_for(target) {
            secrets.push(SecretValue {
                value: self.owner.value(secret.clone()).await?,
                secret_id: secret.secret_id.clone(),
                placeholder: secret.placeholder.clone(),
                inject: secret.inject.clone(),
            });
        }
        Ok(secrets)
    }

    /// Records an allowed attempt. Must be called before the connection to the host is made.
    pub(crate) async fn record_allowed(&self, target: &Target) -> Result<Arc<Record>, ProxyError> {
        let id = self.record(target, Verdict::Allowed).await?;
        Ok(Record::new(self.owner.clone(), id))
    }

    /// Records a denied attempt and returns the error for the program.
    pub(crate) async fn deny(&self, target: &Target, reason: String) -> ProxyError {
        match self.record(target, Verdict::Denied { reason: reason.clone() }).await {
            Ok(_) => ProxyError::Denied { reason },
            Err(unavailable) => unavailable.into(),
        }
    }

    async fn record(&self, target: &Target, verdict: Verdict) -> Result<RecordId, Unavailable> {
        let (host, port) = (target.bare_name().to_owned(), target.port());
        self.owner.record(Attempt { user: self.user.clone(), host, port, verdict }).await
    }
}
