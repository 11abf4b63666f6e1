//! OpenAPI schemas for the request bodies that create or change a deployment. These types are never deserialized:
//! [`super::body`] parses the bodies field by field, so that it can report all errors of a request together.
#![expect(dead_code, reason = "they only describe the schema")]

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
    /// Your own id for the customer that the agent works for. A customer can have several deployments.
    #[schema(min_length = 1, max_length = 256)]
    customer_id: String,
    #[schema(min_length = 1, max_length = 256)]
    name: String,
    #[schema(max_length = 100_000)]
    system_prompt: String,
    #[schema(default = "hermes", pattern = "^hermes$")]
    runtime: Option<String>,
    /// The name of the model, as `provider/model`. The default is the server's default model, see `list_models`.
    #[schema(example = "anthropic/claude-sonnet-4.5")]
    model: Option<String>,
    sandbox: Option<SandboxBody>,
    #[schema(max_items = 20)]
    mcp_servers: Option<Vec<NewMcpServerBody>>,
    #[schema(max_items = 20)]
    skills: Option<Vec<NewSkillBody>>,
    /// Maps environment variable names to secret ids. In the sandbox, each variable contains a random placeholder text,
    /// which is replaced by the secret's value in HTTP requests to the secret's allowed hosts.
    secrets: Option<BTreeMap<String, SecretId>>,
    features: Option<FeaturesBody>,
    /// Your own key-value pairs: at most 16, with keys of at most 64 characters and values of at most 512 characters.
    metadata: Option<BTreeMap<String, String>>,
    budget: Option<BudgetBody>,
    steering: Option<SteeringBody>,
    dreaming: Option<DreamingBody>,
    /// Models that are called if `model` fails, in this order. Each is named `provider/model`.
    #[schema(max_items = 5)]
    fallback_models: Option<Vec<String>>,
    /// A snapshot of a deleted deployment of the same customer. The files of the snapshot are restored into the new
    /// workspace. Until the restore is complete, the status of the deployment is `provisioning`.
    restore_snapshot: Option<SnapshotId>,
}

/// Changes to a deployment. Fields that are absent are unchanged. `null` resets a field to its default. As the value of
/// a key in `metadata` or `secrets`, `null` removes the key.
#[derive(utoipa::ToSchema)]
#[schema(as = UpdateDeployment)]
pub(crate) struct UpdateDeployment {
    #[schema(min_length = 1, max_length = 256)]
    name: Option<String>,
    #[schema(max_length = 100_000)]
    system_prompt: Option<String>,
    #[schema(example = "anthropic/claude-sonnet-4.5")]
    model: Option<String>,
    /// Changes to the sandbox settings. `type` and `persistent_filesystem` cannot be changed after creation.
    sandbox: Option<SandboxBody>,
    /// The complete new list of MCP servers. Existing servers that it does not contain are removed.
    #[schema(max_items = 20)]
    mcp_servers: Option<Vec<NewMcpServerBody>>,
    /// The complete new list of skills. Existing skills that it does not contain are removed.
    #[schema(max_items = 20)]
    skills: Option<Vec<NewSkillBody>>,
    /// Maps environment variable names to secret ids. The entries are merged into the existing ones. `null` as a secret
    /// id removes the entry.
    secrets: Option<BTreeMap<String, Option<String>>>,
    features: Option<FeaturesBody>,
    /// Key-value pairs. They are merged into the existing ones. `null` as a value removes the key.
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
    /// The CPU limit, in cores. May be a fraction.
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
    /// The time in seconds for which a steering request (an approval or a question) waits for a person's answer before
    /// it expires. `null` means that it never expires.
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
