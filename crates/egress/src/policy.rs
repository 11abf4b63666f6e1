//! What one deployment's sandbox may reach, and which secrets go where.

use herm_types::sandbox::EgressMode;
use herm_types::secret::{HostPattern, Inject, SecretId};

/// What may be reached at this moment.
#[derive(Clone, Debug)]
pub struct Policy {
    pub mode: EgressMode,
    /// With [`EgressMode::Allowlist`] alone.
    pub hosts: Vec<HostPattern>,
    pub secrets: Vec<PolicySecret>,
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
