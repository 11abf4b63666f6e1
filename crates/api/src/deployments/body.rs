//! Parses the request bodies of `create_deployment` and `update_deployment`.

use std::collections::BTreeMap;

use herm_app::Settings;
use herm_app::deployments::{
    BudgetPatch, DeploymentPatch, FeaturesPatch, FieldPatch, MAX_MCP_SERVERS, MAX_METADATA_PAIRS, MAX_SKILLS,
    MapPatch, NewDeployment, NewSandbox, SteeringPatch,
};
use herm_app::mcp_servers::is_env_var_name;
use herm_types::deployment::{DreamingMode, OnExpiry, RUNTIME};
use herm_types::model::ModelName;
use herm_types::sandbox::SandboxType;
use herm_types::{Error, SnapshotId};
use serde_json::Value;

use super::patch::{boolean, change, choice, group, integer, number};
use super::sandbox::sandbox;
use crate::input::{FieldErrors, FieldValue, Object};
use crate::{mcp_servers, skills};

pub(super) const MAX_NAME_CHARS: usize = 256;
const MAX_PROMPT_CHARS: usize = 100_000;
/// The maximum number of keys in each of the objects `metadata` and `secrets` of a request body. Keys with the value
/// `null`, which remove an entry from the deployment, count too. A request with more keys is rejected.
const MAX_MAP_KEYS: usize = 256;
const MAX_METADATA_KEY_CHARS: usize = 64;
const MAX_METADATA_VALUE_CHARS: usize = 512;
const MAX_FALLBACK_MODELS: usize = 5;
/// The maximum value of `steering.expires_after_s`: one year, in seconds. A larger value is rejected.
const MAX_EXPIRY_S: u64 = 31_536_000;
/// The maximum value of each budget field, in credits. A larger value is rejected. The limit is far above any realistic
/// budget.
const MAX_CREDITS: f64 = 1e12;

/// Parses the body of `create_deployment`.
///
/// # Errors
/// `validation_error`, which lists all invalid fields of the body.
pub(super) fn create(body: &Value, settings: &Settings) -> Result<NewDeployment, Error> {
    let mut errors = FieldErrors::default();
    let mut object = Object::from_body(body, &mut errors);
    let customer_id = object.required_string("customer_id", 1..=MAX_NAME_CHARS, &mut errors);
    let name = object.required_string("name", 1..=MAX_NAME_CHARS, &mut errors);
    let system_prompt = object.required_string("system_prompt", 0..=MAX_PROMPT_CHARS, &mut errors);
    object.choice("runtime", &[(RUNTIME, ())], &mut errors);
    let restore_snapshot = object.parsed::<SnapshotId>("restore_snapshot", &mut errors);
    let mut changes = changes(&mut object, settings, &mut errors);
    object.finish(&mut errors);
    errors.check()?;
    let (Some(customer_id), Some(name), Some(system_prompt)) = (customer_id, name, system_prompt) else {
        return Err(Error::invalid(Vec::new()));
    };
    let sandbox = NewSandbox {
        kind: changes.sandbox.kind.take().unwrap_or(SandboxType::Docker),
        persistent_filesystem: changes.sandbox.persistent_filesystem.take().unwrap_or(true),
    };
    Ok(NewDeployment { customer_id, name, system_prompt, sandbox, restore_snapshot, patch: changes })
}

/// Parses the body of `update_deployment`.
///
/// # Errors
/// `validation_error`, which lists all invalid fields of the body.
pub(super) fn update(body: &Value, settings: &Settings) -> Result<DeploymentPatch, Error> {
    let mut errors = FieldErrors::default();
    let mut object = Object::from_body(body, &mut errors);
    for name in ["customer_id", "runtime", "restore_snapshot"] {
        if !matches!(object.field_value(name), FieldValue::Absent) {
            errors.add(name, "cannot be changed after creation; create a new deployment instead");
        }
    }
    let mut non_null_string = |name: &'static str, chars| {
        if matches!(object.field_value(name), FieldValue::Null) {
            errors.add(name, "must be a string");
        }
        object.string(name, chars, &mut errors)
    };
    let name = non_null_string("name", 1..=MAX_NAME_CHARS);
    let system_prompt = non_null_string("system_prompt", 0..=MAX_PROMPT_CHARS);
    let changes = changes(&mut object, settings, &mut errors);
    object.finish(&mut errors);
    errors.check()?;
    Ok(DeploymentPatch { name, system_prompt, ..changes })
}

/// Reads the fields that the bodies of `create_deployment` and `update_deployment` have in common.
fn changes(object: &mut Object<'_>, settings: &Settings, errors: &mut FieldErrors) -> DeploymentPatch {
    DeploymentPatch {
        name: None,
        system_prompt: None,
        model: model(object, settings, errors),
        sandbox: sandbox(object, errors),
        features: features(object, errors),
        metadata: metadata(object, errors),
        secrets: secrets(object, errors),
        mcp_servers: object
            .objects("mcp_servers", MAX_MCP_SERVERS, errors)
            .map(|items| items.into_iter().filter_map(|item| mcp_servers::parse_new(item, errors)).collect()),
        skills: object
            .objects("skills", MAX_SKILLS, errors)
            .map(|items| items.into_iter().filter_map(|item| skills::parse_new(item, errors)).collect()),
        budget: budget(object, errors),
        steering: steering(object, errors),
        dreaming: dreaming(object, errors),
        fallback_models: fallback_models(object, settings, errors),
    }
}

fn model_name(text: &str, settings: &Settings) -> Result<ModelName, String> {
    let parsed = ModelName::parse(text).filter(|name| settings.providers.contains(&name.provider));
    let fits = text.chars().count() <= MAX_NAME_CHARS && !text.contains(char::is_control);
    parsed.filter(|_| fits).ok_or_else(|| {
        format!("must be `provider/model`, where `provider` is one of: {}", settings.providers.join(", "))
    })
}

fn model(object: &mut Object<'_>, settings: &Settings, errors: &mut FieldErrors) -> FieldPatch<ModelName> {
    change(object, "model", errors, |value| match value.as_str() {
        Some(text) => model_name(text, settings),
        None => Err("must be a string".to_owned()),
    })
}

fn fallback_models(
    object: &mut Object<'_>,
    settings: &Settings,
    errors: &mut FieldErrors,
) -> Option<Vec<ModelName>> {
    let texts = object.strings("fallback_models", MAX_FALLBACK_MODELS, errors)?.unwrap_or_default();
    let mut models = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match model_name(text, settings) {
            Ok(name) => models.push(name),
            Err(message) => errors.add(format!("fallback_models[{index}]"), message),
        }
    }
    Some(models)
}

fn features(object: &mut Object<'_>, errors: &mut FieldErrors) -> FeaturesPatch {
    let reset = || FeaturesPatch {
        memory: FieldPatch::Reset,
        dreaming: FieldPatch::Reset,
        automations: FieldPatch::Reset,
        steering: FieldPatch::Reset,
        filesystem_webhooks: FieldPatch::Reset,
    };
    group(object, "features", errors, reset, |features, errors| FeaturesPatch {
        memory: change(features, "memory", errors, boolean),
        dreaming: change(features, "dreaming", errors, boolean),
        automations: change(features, "automations", errors, boolean),
        steering: change(features, "steering", errors, boolean),
        filesystem_webhooks: change(features, "filesystem_webhooks", errors, boolean),
    })
}

fn budget(object: &mut Object<'_>, errors: &mut FieldErrors) -> BudgetPatch {
    let reset =
        || BudgetPatch { max_credits_per_run: FieldPatch::Reset, max_credits_per_day: FieldPatch::Reset };
    group(object, "budget", errors, reset, |budget, errors| BudgetPatch {
        max_credits_per_run: change(budget, "max_credits_per_run", errors, number(0.0, MAX_CREDITS)),
        max_credits_per_day: change(budget, "max_credits_per_day", errors, number(0.0, MAX_CREDITS)),
    })
}

fn steering(object: &mut Object<'_>, errors: &mut FieldErrors) -> SteeringPatch {
    const ON_EXPIRY: [(&str, OnExpiry); 3] =
        [("deny", OnExpiry::Deny), ("approve", OnExpiry::Approve), ("fail", OnExpiry::Fail)];
    let reset = || SteeringPatch { expires_after_s: FieldPatch::Reset, on_expiry: FieldPatch::Reset };
    group(object, "steering", errors, reset, |steering, errors| SteeringPatch {
        expires_after_s: change(steering, "expires_after_s", errors, integer(1, MAX_EXPIRY_S)),
        on_expiry: change(steering, "on_expiry", errors, choice(&ON_EXPIRY)),
    })
}

fn dreaming(object: &mut Object<'_>, errors: &mut FieldErrors) -> FieldPatch<DreamingMode> {
    const MODES: [(&str, DreamingMode); 2] = [("auto", DreamingMode::Auto), ("review", DreamingMode::Review)];
    group(
        object,
        "dreaming",
        errors,
        || FieldPatch::Reset,
        |dreaming, errors| change(dreaming, "mode", errors, choice(&MODES)),
    )
}

/// Reads a map of keys and values, such as the field `metadata`, as a patch. Each entry sets a key, or removes the key
/// if the value is `null`. If the whole field is `null`, all keys are removed.
fn map_change<T>(
    object: &mut Object<'_>,
    name: &'static str,
    errors: &mut FieldErrors,
    parse: impl Fn(&str, &Value) -> Result<T, String>,
) -> MapPatch<T> {
    let map = match object.field_value(name) {
        FieldValue::Absent => return MapPatch::default(),
        FieldValue::Null => return MapPatch::Clear,
        FieldValue::Value(Value::Object(map)) if map.len() <= MAX_MAP_KEYS => map,
        FieldValue::Value(_) => {
            let message =
                format!("must be an object whose values are strings, with at most {MAX_MAP_KEYS} keys");
            errors.add(name, message);
            return MapPatch::default();
        }
    };
    let mut changes = BTreeMap::new();
    for (key, value) in map {
        match value {
            Value::Null => drop(changes.insert(key.clone(), None)),
            value => match parse(key, value) {
                Ok(value) => drop(changes.insert(key.clone(), Some(value))),
                Err(message) => errors.add(format!("{name}.{key}"), message),
            },
        }
    }
    MapPatch::Merge(changes)
}

fn metadata(object: &mut Object<'_>, errors: &mut FieldErrors) -> MapPatch<String> {
    let changes = map_change(object, "metadata", errors, |key, value| {
        let Some(value) = value.as_str() else { return Err("must be a string".to_owned()) };
        if key.is_empty() || key.chars().count() > MAX_METADATA_KEY_CHARS {
            return Err(format!("invalid key: must be 1 to {MAX_METADATA_KEY_CHARS} characters long"));
        }
        if value.chars().count() > MAX_METADATA_VALUE_CHARS {
            return Err(format!("must be at most {MAX_METADATA_VALUE_CHARS} characters long"));
        }
        if key.contains('\0') || value.contains('\0') {
            return Err("must not contain the character U+0000".to_owned());
        }
        Ok(value.to_owned())
    });
    if let MapPatch::Merge(pairs) = &changes
        && pairs.values().flatten().count() > MAX_METADATA_PAIRS
    {
        errors.add("metadata", format!("must have at most {MAX_METADATA_PAIRS} key-value pairs"));
    }
    changes
}

fn secrets(object: &mut Object<'_>, errors: &mut FieldErrors) -> MapPatch<herm_types::secret::SecretId> {
    map_change(object, "secrets", errors, |name, value| {
        if !is_env_var_name(name) {
            let message = "invalid key: must be an environment variable name of letters, digits and `_`, not \
                           beginning with a digit";
            return Err(message.to_owned());
        }
        let id = value.as_str().map(str::parse);
        id.unwrap_or(Err(herm_types::secret::InvalidSecretId)).map_err(|error| error.to_string())
    })
}
