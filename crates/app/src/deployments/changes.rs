//! What a create or an update says, applied to what there is: a create changes the defaults.

use std::collections::BTreeMap;

use herm_types::deployment::{Budget, Deployment, DreamingMode, Features, OnExpiry, SteeringPolicy};
use herm_types::model::ModelName;
use herm_types::sandbox::{Egress, SandboxSettings, SandboxType};
use herm_types::secret::SecretId;
use herm_types::{Error, Fault};
use serde_json::Number;

use crate::mcp_servers::NewMcpServer;
use crate::skills::NewSkill;

/// Pairs of a deployment's metadata.
pub const MAX_METADATA_PAIRS: usize = 16;
/// Secrets of a deployment.
const MAX_SECRETS: usize = 64;

/// What is said of one value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// Nothing: it stays.
    #[default]
    Keep,
    /// It is as if it had never been given.
    Reset,
    Set(T),
}

impl<T> Change<T> {
    /// Applies it to a value that has a default.
    fn apply(self, value: &mut T, default: T) {
        match self {
            Self::Keep => {}
            Self::Reset => *value = default,
            Self::Set(new) => *value = new,
        }
    }

    /// Applies it to a value that may be missing.
    fn apply_to_option(self, value: &mut Option<T>) {
        match self {
            Self::Keep => {}
            Self::Reset => *value = None,
            Self::Set(new) => *value = Some(new),
        }
    }
}

/// What is said of a map: of some keys, or of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapChange<T> {
    /// `None` removes a key; what is not named stays.
    Merge(BTreeMap<String, Option<T>>),
    Clear,
}

impl<T> Default for MapChange<T> {
    fn default() -> Self {
        Self::Merge(BTreeMap::new())
    }
}

impl<T> MapChange<T> {
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

/// What is said of a sandbox.
#[derive(Clone, Debug, Default)]
pub struct SandboxChanges {
    pub enabled: Change<bool>,
    /// Chosen once: an update may only repeat it.
    pub kind: Option<SandboxType>,
    /// Chosen once, too.
    pub persistent_filesystem: Option<bool>,
    pub image: Change<String>,
    pub cpu: Change<Number>,
    pub memory_mb: Change<u64>,
    pub disk_mb: Change<u64>,
    pub idle_timeout_s: Change<u64>,
    pub egress: Change<Egress>,
}

impl SandboxChanges {
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

/// What is said of the features.
#[derive(Clone, Debug, Default)]
pub struct FeatureChanges {
    pub memory: Change<bool>,
    pub dreaming: Change<bool>,
    pub automations: Change<bool>,
    pub steering: Change<bool>,
    pub filesystem_webhooks: Change<bool>,
}

impl FeatureChanges {
    fn apply(self, features: &mut Features) {
        let default = Features::default();
        self.memory.apply(&mut features.memory, default.memory);
        self.dreaming.apply(&mut features.dreaming, default.dreaming);
        self.automations.apply(&mut features.automations, default.automations);
        self.steering.apply(&mut features.steering, default.steering);
        self.filesystem_webhooks.apply(&mut features.filesystem_webhooks, default.filesystem_webhooks);
    }
}

/// What is said of the budget.
#[derive(Clone, Debug, Default)]
pub struct BudgetChanges {
    pub max_credits_per_run: Change<Number>,
    pub max_credits_per_day: Change<Number>,
}

impl BudgetChanges {
    fn apply(self, budget: &mut Budget) {
        self.max_credits_per_run.apply_to_option(&mut budget.max_credits_per_run);
        self.max_credits_per_day.apply_to_option(&mut budget.max_credits_per_day);
    }
}

/// What is said of the steering.
#[derive(Clone, Debug, Default)]
pub struct SteeringChanges {
    pub expires_after_s: Change<u64>,
    pub on_expiry: Change<OnExpiry>,
}

impl SteeringChanges {
    fn apply(self, policy: &mut SteeringPolicy) {
        self.expires_after_s.apply_to_option(&mut policy.expires_after_s);
        self.on_expiry.apply(&mut policy.on_expiry, OnExpiry::default());
    }
}

/// What a body says of a deployment; every value is checked already for what it is alone.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    pub name: Option<String>,
    pub system_prompt: Option<String>,
    pub model: Change<ModelName>,
    pub sandbox: SandboxChanges,
    pub features: FeatureChanges,
    pub metadata: MapChange<String>,
    pub secrets: MapChange<SecretId>,
    /// All of them, in order.
    pub mcp_servers: Option<Vec<NewMcpServer>>,
    /// All of them, in order.
    pub skills: Option<Vec<NewSkill>>,
    pub budget: BudgetChanges,
    pub steering: SteeringChanges,
    pub dreaming: Change<DreamingMode>,
    pub fallback_models: Option<Vec<ModelName>>,
}

impl Changes {
    /// Applies what needs nothing but the deployment: all but its MCP servers and skills.
    ///
    /// # Errors
    /// `validation_error` with every fault that only the whole has.
    pub(super) fn apply(self, deployment: &mut Deployment, default_model: &ModelName) -> Result<(), Error> {
        let mut faults = self.sandbox.faults(&deployment.settings.sandbox);
        let settings = &mut deployment.settings;
        deployment.name = self.name.unwrap_or_else(|| deployment.name.clone());
        deployment.system_prompt = self.system_prompt.unwrap_or_else(|| deployment.system_prompt.clone());
        let model = match self.model {
            Change::Keep => None,
            Change::Reset => Some(default_model.to_string()),
            Change::Set(model) => Some(model.to_string()),
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
        for (path, count, most) in [
            ("metadata", settings.metadata.len(), MAX_METADATA_PAIRS),
            ("secrets", settings.secrets.len(), MAX_SECRETS),
        ] {
            if count > most {
                faults.push(Fault::new(path, format!("must have at most {most} pairs, not {count}")));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(Error::invalid(faults)) }
    }
}

impl SandboxChanges {
    /// What is chosen once cannot be chosen again.
    fn faults(&self, sandbox: &SandboxSettings) -> Vec<Fault> {
        let message = "is chosen at create and kept; create a new deployment to change it";
        let mut faults = Vec::new();
        if self.kind.is_some_and(|kind| kind != sandbox.kind) {
            faults.push(Fault::new("sandbox.type", message));
        }
        if self.persistent_filesystem.is_some_and(|persistent| persistent != sandbox.persistent_filesystem) {
            faults.push(Fault::new("sandbox.persistent_filesystem", message));
        }
        faults
    }
}
