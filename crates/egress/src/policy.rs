//! The egress policy of a deployment: the hosts that its sandbox may reach, and the hosts that may receive each
//! secret.

use herm_types::sandbox::EgressMode;
use herm_types::secret::{HostPattern, Inject, SecretId};

use crate::target::Target;

/// A deployment's egress policy at the time when the proxy requested it.
#[derive(Clone, Debug)]
pub struct Policy {
    pub mode: EgressMode,
    /// The hosts that the sandbox may reach. Used with [`EgressMode::Allowlist`] only.
    pub hosts: Vec<HostPattern>,
    pub secrets: Vec<PolicySecret>,
}

impl Policy {
    /// Returns the secrets that may be sent to this host.
    pub(crate) fn secrets_for(&self, target: &Target) -> impl Iterator<Item = &PolicySecret> {
        let allows_target = |secret: &&PolicySecret| {
            secret.allowed_hosts.iter().any(|host| host.matches(target.name(), target.port()))
        };
        self.secrets.iter().filter(allows_target)
    }
}

/// Describes a secret that the deployment uses. Does not contain the secret's value.
#[derive(Clone, Debug)]
pub struct PolicySecret {
    pub secret_id: SecretId,
    /// The text that programs in the sandbox hold in place of the value. It is unique to this deployment.
    pub placeholder: String,
    pub allowed_hosts: Vec<HostPattern>,
    pub inject: Vec<Inject>,
}
