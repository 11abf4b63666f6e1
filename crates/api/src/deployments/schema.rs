//! The shapes of the bodies, for the OpenAPI document; [`super::body`] reads them field by field, to find every fault.
#![expect(dead_code, reason = "they are shapes alone")]

use std::collections::BTreeMap;

use herm_types::SnapshotId;
use herm_types::deployment::{DreamingMode, OnExpiry};
use herm_types::sandbox::{Egress, SandboxType};
use herm_types::secret::SecretId;

use crate::mcp_servers::NewMcpServerBody;
use crate::skills::NewSkillBody;

#[derive(utoipa::ToSchema)]
#[schema(as = CreateDeployment)]
pub(crate) struct CreateDeployment {
    /// Your own id for the customer. Several deployments per customer are allowed.
    #[schema(min_length = 1, max_length = 256)]
    customer_id: String,
    #[schema(min_length = 1, max_length = 256)]
    name: String,
    #[schema(max_length = 100_000)]
    system_prompt: String,
    #[schema(default = "hermes", pattern = "^hermes$")]
    runtime: Option<String>,
    /// `provider/model`; the server's default model when it is left out.
    #[schema(example = "anthropic/claude-sonnet-4.5")]
    model: Option<String>,
    sandbox: Option<SandboxBody>,
    #[schema(max_items = 20)]
    mcp_servers: Option<Vec<NewMcpServerBody>>,
    #[schema(max_items = 20)]
    skills: Option<Vec<NewSkillBody>>,
    /// Environment-variable name to secret id.
    secrets: Option<BTreeMap<String, SecretId>>,
    features: Option<FeaturesBody>,
    /// At most 16 pairs; keys of at most 64 characters, values of at most 512.
    metadata: Option<BTreeMap<String, String>>,
    budget: Option<BudgetBody>,
    steering: Option<SteeringBody>,
    dreaming: Option<DreamingBody>,
    /// Tried in order when the model fails.
    #[schema(max_items = 5)]
    fallback_models: Option<Vec<String>>,
    /// The files that it begins with: a snapshot of the same customer. The status is `provisioning` until they are there.
    restore_snapshot: Option<SnapshotId>,
}

/// What is left out stays. `null` puts a value back to its default, removes a key of a map, and empties a list.
#[derive(utoipa::ToSchema)]
#[schema(as = UpdateDeployment)]
pub(crate) struct UpdateDeployment {
    #[schema(min_length = 1, max_length = 256)]
    name: Option<String>,
    #[schema(max_length = 100_000)]
    system_prompt: Option<String>,
    #[schema(example = "anthropic/claude-sonnet-4.5")]
    model: Option<String>,
    /// `type` and `persistent_filesystem` cannot be changed.
    sandbox: Option<SandboxBody>,
    /// All of them: those that are not given are removed.
    #[schema(max_items = 20)]
    mcp_servers: Option<Vec<NewMcpServerBody>>,
    /// All of them: those that are not given are removed.
    #[schema(max_items = 20)]
    skills: Option<Vec<NewSkillBody>>,
    /// Merged by name; `null` removes one.
    secrets: Option<BTreeMap<String, Option<String>>>,
    features: Option<FeaturesBody>,
    /// Merged by key; `null` removes one.
    metadata: Option<BTreeMap<String, Option<String>>>,
    budget: Option<BudgetBody>,
    steering: Option<SteeringBody>,
    dreaming: Option<DreamingBody>,
    #[schema(max_items = 5)]
    fallback_models: Option<Vec<String>>,
}

#[derive(utoipa::ToSchema)]
#[schema(as = SandboxOptions)]
pub(crate) struct SandboxBody {
    #[schema(default = true)]
    enabled: Option<bool>,
    #[serde(rename = "type")]
    #[schema(default = "docker")]
    kind: Option<SandboxType>,
    #[schema(default = true)]
    persistent_filesystem: Option<bool>,
    #[schema(min_length = 1, max_length = 512)]
    image: Option<String>,
    /// Cores.
    #[schema(minimum = 0.1, maximum = 256)]
    cpu: Option<f64>,
    #[schema(minimum = 64, maximum = 1_048_576)]
    memory_mb: Option<u64>,
    #[schema(minimum = 16, maximum = 16_777_216)]
    disk_mb: Option<u64>,
    #[schema(minimum = 10, maximum = 604_800)]
    idle_timeout_s: Option<u64>,
    egress: Option<Egress>,
}

#[derive(utoipa::ToSchema)]
#[schema(as = FeatureOptions)]
pub(crate) struct FeaturesBody {
    #[schema(default = true)]
    memory: Option<bool>,
    #[schema(default = false)]
    dreaming: Option<bool>,
    #[schema(default = true)]
    automations: Option<bool>,
    #[schema(default = true)]
    steering: Option<bool>,
    #[schema(default = false)]
    filesystem_webhooks: Option<bool>,
}

#[derive(utoipa::ToSchema)]
#[schema(as = BudgetOptions)]
pub(crate) struct BudgetBody {
    #[schema(minimum = 0)]
    max_credits_per_run: Option<f64>,
    #[schema(minimum = 0)]
    max_credits_per_day: Option<f64>,
}

#[derive(utoipa::ToSchema)]
#[schema(as = SteeringOptions)]
pub(crate) struct SteeringBody {
    /// `null`: for ever.
    #[schema(minimum = 1, maximum = 31_536_000)]
    expires_after_s: Option<u64>,
    #[schema(default = "deny")]
    on_expiry: Option<OnExpiry>,
}

#[derive(utoipa::ToSchema)]
#[schema(as = DreamingOptions)]
pub(crate) struct DreamingBody {
    #[schema(default = "auto")]
    mode: Option<DreamingMode>,
}
