//! Patches of a deployment. An update request patches the stored deployment. A create request patches the
//! default settings.

use std::collections::BTreeMap;

use herm_types::deployment::{Budget, Deployment, DreamingMode, Features, OnExpiry, SteeringPolicy};
use herm_types::model::ModelName;
use herm_types::sandbox::{Egress, SandboxSettings, SandboxType};
use herm_types::secret::SecretId;
use herm_types::{Error, FieldError};
use serde_json::Number;

use crate::mcp_servers::NewMcpServer;
use crate::skills::NewSkill;

/// The maximum number of metadata entries of a deployment. A patch that exceeds it is rejected.
pub const MAX_METADATA_PAIRS: usize = 16;
/// The maximum number of secrets of a deployment. A patch that exceeds it is rejected.
const MAX_SECRETS: usize = 64;

/// A patch of one field of a deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FieldPatch<T> {
    /// Leaves the field unchanged.
    #[default]
    Keep,
    /// Resets the field to its default.
    Reset,
    Set(T),
}

impl<T> FieldPatch<T> {
    /// Applies the patch to a field. `Reset` sets the field to `default`.
    fn apply(self, value: &mut T, default: T) {
        match self {
            Self::Keep => {}
            Self::Reset => *value = default,
            Self::Set(new) => *value = new,
        }
    }

    /// Applies the patch to an optional field. `Reset` sets the field to `None`.
    fn apply_to_option(self, value: &mut Option<T>) {
        match self {
            Self::Keep => {}
            Self::Reset => *value = None,
            Self::Set(new) => *value = Some(new),
        }
    }
}

/// A patch of a map, for example of a deployment's metadata or secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapPatch<T> {
    /// Sets each key to its value, or removes the key if the value is `None`. Keys that the patch does not
    /// contain are unchanged.
    Merge(BTreeMap<String, Option<T>>),
    /// Removes all entries of the map.
    Clear,
}

impl<T> Default for MapPatch<T> {
    fn default() -> Self {
        Self::Merge(BTreeMap::new())
    }
}

impl<T> MapPatch<T> {
    fn apply(self, map: &mut BTreeMap<String, T>) {
        match self {
            Self::Clear => map.clear(),
            Self::Merge(changes) => {
                for (key, value) in changes {
                    match value {
                        Some(value) => map.insert(key, value),
                        None => map.remove(&key),
                    };
                }
            }
        }
    }
}

/// A patch of a deployment's sandbox settings.
#[derive(Clone, Debug, Default)]
pub struct SandboxPatch {
    pub enabled: FieldPatch<bool>,
    /// Cannot be changed after creation. An update may only repeat the current value.
    pub kind: Option<SandboxType>,
    /// Cannot be changed after creation. An update may only repeat the current value.
    pub persistent_filesystem: Option<bool>,
    pub image: FieldPatch<String>,
    pub cpu: FieldPatch<Number>,
    pub memory_mb: FieldPatch<u64>,
    pub disk_mb: FieldPatch<u64>,
    pub idle_timeout_s: FieldPatch<u64>,
    pub egress: FieldPatch<Egress>,
}

impl SandboxPatch {
    fn apply(self, sandbox: &mut SandboxSettings) {
        self.enabled.apply(&mut sandbox.enabled, true);
        self.image.apply_to_option(&mut sandbox.image);
        self.cpu.apply_to_option(&mut sandbox.cpu);
        self.memory_mb.apply_to_option(&mut sandbox.memory_mb);
        self.disk_mb.apply_to_option(&mut sandbox.disk_mb);
        self.idle_timeout_s.apply_to_option(&mut sandbox.idle_timeout_s);
        self.egress.apply_to_option(&mut sandbox.egress);
    }
}

/// A patch of a deployment's enabled features.
#[derive(Clone, Debug, Default)]
pub struct FeaturesPatch {
    pub memory: FieldPatch<bool>,
    pub dreaming: FieldPatch<bool>,
    pub automations: FieldPatch<bool>,
    pub steering: FieldPatch<bool>,
    pub filesystem_webhooks: FieldPatch<bool>,
}

impl FeaturesPatch {
    fn apply(self, features: &mut Features) {
        let default = Features::default();
        self.memory.apply(&mut features.memory, default.memory);
        self.dreaming.apply(&mut features.dreaming, default.dreaming);
        self.automations.apply(&mut features.automations, default.automations);
        self.steering.apply(&mut features.steering, default.steering);
        self.filesystem_webhooks.apply(&mut features.filesystem_webhooks, default.filesystem_webhooks);
    }
}

/// A patch of a deployment's budget.
#[derive(Clone, Debug, Default)]
pub struct BudgetPatch {
    pub max_credits_per_run: FieldPatch<Number>,
    pub max_credits_per_day: FieldPatch<Number>,
}

impl BudgetPatch {
    fn apply(self, budget: &mut Budget) {
        self.max_credits_per_run.apply_to_option(&mut budget.max_credits_per_run);
        self.max_credits_per_day.apply_to_option(&mut budget.max_credits_per_day);
    }
}

/// A patch of a deployment's steering policy.
#[derive(Clone, Debug, Default)]
pub struct SteeringPatch {
    pub expires_after_s: FieldPatch<u64>,
    pub on_expiry: FieldPatch<OnExpiry>,
}

impl SteeringPatch {
    fn apply(self, policy: &mut SteeringPolicy) {
        self.expires_after_s.apply_to_option(&mut policy.expires_after_s);
        self.on_expiry.apply(&mut policy.on_expiry, OnExpiry::default());
    }
}

/// A patch of a deployment. Each field is valid by itself, but combinations of fields have not been checked
/// yet.
#[derive(Clone, Debug, Default)]
pub struct DeploymentPatch {
    pub name: Option<String>,
    pub system_prompt: Option<String>,
    pub model: FieldPatch<ModelName>,
    pub sandbox: SandboxPatch,
    pub features: FeaturesPatch,
    pub metadata: MapPatch<String>,
    pub secrets: MapPatch<SecretId>,
    /// A list that replaces all current MCP servers. `None` leaves them unchanged.
    pub mcp_servers: Option<Vec<NewMcpServer>>,
    /// A list that replaces all current skills. `None` leaves them unchanged.
    pub skills: Option<Vec<NewSkill>>,
    pub budget: BudgetPatch,
    pub steering: SteeringPatch,
    pub dreaming: FieldPatch<DreamingMode>,
    pub fallback_models: Option<Vec<ModelName>>,
}

impl DeploymentPatch {
    /// Applies the patch except for MCP servers and skills. The caller applies those two, because it must
    /// encrypt the header values of MCP servers and fetch the text of skills.
    ///
    /// # Errors
    /// Returns `validation_error` with one field error for each map that has too many entries, and one for
    /// each attempt to change a property that cannot be changed.
    pub(super) fn apply(self, deployment: &mut Deployment, default_model: &ModelName) -> Result<(), Error> {
        let mut errors = self.sandbox.errors(&deployment.settings.sandbox);
        let settings = &mut deployment.settings;
        deployment.name = self.name.unwrap_or_else(|| deployment.name.clone());
        deployment.system_prompt = self.system_prompt.unwrap_or_else(|| deployment.system_prompt.clone());
        let model = match self.model {
            FieldPatch::Keep => None,
            FieldPatch::Reset => Some(default_model.to_string()),
            FieldPatch::Set(model) => Some(model.to_string()),
        };
        deployment.model = model.unwrap_or_else(|| deployment.model.clone());
        self.sandbox.apply(&mut settings.sandbox);
        self.features.apply(&mut settings.features);
        self.metadata.apply(&mut settings.metadata);
        self.secrets.apply(&mut settings.secrets);
        self.budget.apply(&mut settings.budget);
        self.steering.apply(&mut settings.steering);
        self.dreaming.apply(&mut settings.dreaming.mode, DreamingMode::default());
        if let Some(models) = self.fallback_models {
            settings.fallback_models = models.iter().map(ModelName::to_string).collect();
        }
        for (path, count, max) in [
            ("metadata", settings.metadata.len(), MAX_METADATA_PAIRS),
            ("secrets", settings.secrets.len(), MAX_SECRETS),
        ] {
            if count > max {
                errors.push(FieldError::new(path, format!("must have at most {max} entries, not {count}")));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(Error::invalid(errors)) }
    }
}

impl SandboxPatch {
    /// Returns a field error for each attempt to change a sandbox property that cannot be changed after
    /// creation.
    fn errors(&self, sandbox: &SandboxSettings) -> Vec<FieldError> {
        let message = "cannot be changed after creation";
        let mut errors = Vec::new();
        if self.kind.is_some_and(|kind| kind != sandbox.kind) {
            errors.push(FieldError::new("sandbox.type", message));
        }
        if self.persistent_filesystem.is_some_and(|persistent| persistent != sandbox.persistent_filesystem) {
            errors.push(FieldError::new("sandbox.persistent_filesystem", message));
        }
        errors
    }
}
