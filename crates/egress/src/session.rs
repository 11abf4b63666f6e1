//! What is decided for one program's connection: whether a host may be reached, at which addresses, with which values.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use herm_types::sandbox::EgressMode;
use tokio::time::timeout;

use crate::dial::MAX_ADDRESSES;
use crate::egress::Shared;
use crate::fault::Fault;
use crate::owner::{Attempt, Owner, RecordId, Unavailable, Verdict};
use crate::policy::Policy;
use crate::record::Record;
use crate::target::Target;
use crate::values::Given;

/// How long a name may take to be resolved.
const RESOLVE_LIMIT: Duration = Duration::from_secs(10);

/// Who asks, and of whom.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) owner: Arc<dyn Owner>,
    pub(crate) user: Option<String>,
}

impl Session {
    /// What may be reached now, if this host may. A denial is recorded.
    pub(crate) async fn policy_for(&self, target: &Target) -> Result<Policy, Fault> {
        let policy = self.owner.policy().await?;
        let is_listed = || policy.hosts.iter().any(|host| host.matches(target.name(), target.port()));
        let reason = match policy.mode {
            EgressMode::Open => return Ok(policy),
            EgressMode::Allowlist if is_listed() => return Ok(policy),
            EgressMode::Allowlist => {
                format!("{target} is not on the list of hosts that this sandbox may reach")
            }
            EgressMode::Deny => format!("this sandbox may not reach the network, so not {target} either"),
        };
        Err(self.deny(target, reason).await)
    }

    /// The addresses at which the host may be reached. Only to these, as they are found here, may a connection be made:
    /// whoever asks again could be told other ones.
    pub(crate) async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, Fault> {
        let found = match target.address() {
            Some(address) => vec![address],
            None => match self.resolve(target).await {
                Ok(found) => found,
                Err(fault) => {
                    // A name can carry data to whoever is asked for it, so that it was asked for is recorded too.
                    self.allow(target).await?.fail(&fault);
                    return Err(fault);
                }
            },
        };
        let reachable: Vec<SocketAddr> = found
            .into_iter()
            .filter(|address| self.shared.allowed.allows(target.name(), *address))
            .take(MAX_ADDRESSES)
            .map(|address| SocketAddr::new(address, target.port()))
            .collect();
        if reachable.is_empty() {
            let reason = format!("{target} has a private address, which sandboxes do not reach");
            return Err(self.deny(target, reason).await);
        }
        Ok(reachable)
    }

    async fn resolve(&self, target: &Target) -> Result<Vec<IpAddr>, Fault> {
        let host = target.bare_name();
        let found = timeout(RESOLVE_LIMIT, self.shared.resolver.resolve(host))
            .await
            .map_err(|_| Fault::Slow { target: target.clone(), seconds: RESOLVE_LIMIT.as_secs() })?;
        let found = found.ok().filter(|addresses| !addresses.is_empty());
        found.ok_or_else(|| Fault::NotFound { host: host.to_owned() })
    }

    /// The secrets that this host may be sent, with their values.
    pub(crate) async fn values(&self, policy: &Policy, target: &Target) -> Result<Vec<Given>, Fault> {
        let mut given = Vec::new();
        for secret in policy.secrets_for(target) {
            given.push(Given {
                value: self.owner.value(secret.clone()).await?,
                secret_id: secret.secret_id.clone(),
                placeholder: secret.placeholder.clone(),
                inject: secret.inject.clone(),
            });
        }
        Ok(given)
    }

    /// Records that a connection to this host is made; it must not be before.
    pub(crate) async fn allow(&self, target: &Target) -> Result<Arc<Record>, Fault> {
        let id = self.record(target, Verdict::Allowed).await?;
        Ok(Record::new(self.owner.clone(), id))
    }

    /// Records a denial, and gives what the program is told.
    pub(crate) async fn deny(&self, target: &Target, reason: String) -> Fault {
        match self.record(target, Verdict::Denied { reason: reason.clone() }).await {
            Ok(_) => Fault::Denied { reason },
            Err(unavailable) => unavailable.into(),
        }
    }

    async fn record(&self, target: &Target, verdict: Verdict) -> Result<RecordId, Unavailable> {
        let (host, port) = (target.bare_name().to_owned(), target.port());
        self.owner.record(Attempt { user: self.user.clone(), host, port, verdict }).await
    }
}
