//! What one deployment's sandbox may reach, and which secrets go where.

use herm_types::sandbox::EgressMode;
use herm_types::secret::{HostPattern, Inject, SecretId};

use crate::target::Target;

/// What may be reached at this moment.
#[derive(Clone, Debug)]
pub struct Policy {
    pub mode: EgressMode,
    /// With [`EgressMode::Allowlist`] alone.
    pub hosts: Vec<HostPattern>,
    pub secrets: Vec<PolicySecret>,
}

impl Policy {
    /// The secrets that may be sent to this host.
    pub(crate) fn secrets_for(&self, target: &Target) -> impl Iterator<Item = &PolicySecret> {
        let is_for = |secret: &&PolicySecret| {
            secret.allowed_hosts.iter().any(|host| host.matches(target.name(), target.port()))
        };
        self.secrets.iter().filter(is_for)
    }
}

/// A secret of the deployment, without its value.
#[derive(Clone, Debug)]
pub struct PolicySecret {
    pub secret_id: SecretId,
    /// What stands for the value in the sandbox, in this deployment's alone.
    pub placeholder: String,
    pub allowed_hosts: Vec<HostPattern>,
    pub inject: Vec<Inject>,
}
