//! The bodies of a create and of an update, with every fault that they may have.

use std::collections::BTreeMap;

use herm_app::Settings;
use herm_app::deployments::{
    BudgetChanges, Change, Changes, Create, CreateSandbox, FeatureChanges, MAX_METADATA_PAIRS, MapChange,
    SteeringChanges,
};
use herm_app::mcp_servers::{MAX_MCP_SERVERS, is_variable};
use herm_app::skills::MAX_SKILLS;
use herm_types::deployment::{DreamingMode, OnExpiry, RUNTIME};
use herm_types::model::ModelName;
use herm_types::sandbox::SandboxType;
use herm_types::{Error, SnapshotId};
use serde_json::{Number, Value};

use super::sandbox::sandbox;
use crate::input::{Faults, Given, Object};
use crate::{mcp_servers, skills};

pub(super) const MAX_NAME_CHARS: usize = 256;
const MAX_PROMPT_CHARS: usize = 100_000;
/// Keys of the two maps that one body may name.
const MAX_MAP_KEYS: usize = 256;
const MAX_METADATA_KEY_CHARS: usize = 64;
const MAX_METADATA_VALUE_CHARS: usize = 512;
const MAX_FALLBACK_MODELS: usize = 5;
/// A year, in seconds.
const MAX_EXPIRY_S: u64 = 31_536_000;
/// More credits than anybody has.
const MAX_CREDITS: f64 = 1e12;

/// Reads the body of a create.
///
/// # Errors
/// `validation_error` with every fault.
pub(super) fn create(body: &Value, settings: &Settings) -> Result<Create, Error> {
    let mut faults = Faults::default();
    let mut object = Object::of_body(body, &mut faults);
    let customer_id = object.required_text("customer_id", 1..=MAX_NAME_CHARS, &mut faults);
    let name = object.required_text("name", 1..=MAX_NAME_CHARS, &mut faults);
    let system_prompt = object.required_text("system_prompt", 0..=MAX_PROMPT_CHARS, &mut faults);
    object.choice("runtime", &[(RUNTIME, ())], &mut faults);
    let restore_snapshot = object.parsed::<SnapshotId>("restore_snapshot", &mut faults);
    let mut changes = changes(&mut object, settings, &mut faults);
    object.finish(&mut faults);
    faults.check()?;
    let (Some(customer_id), Some(name), Some(system_prompt)) = (customer_id, name, system_prompt) else {
        return Err(Error::invalid(Vec::new()));
    };
    let sandbox = CreateSandbox {
        kind: changes.sandbox.kind.take().unwrap_or(SandboxType::Docker),
        persistent_filesystem: changes.sandbox.persistent_filesystem.take().unwrap_or(true),
    };
    Ok(Create { customer_id, name, system_prompt, sandbox, restore_snapshot, changes })
}

/// Reads the body of an update.
///
/// # Errors
/// `validation_error` with every fault.
pub(super) fn update(body: &Value, settings: &Settings) -> Result<Changes, Error> {
    let mut faults = Faults::default();
    let mut object = Object::of_body(body, &mut faults);
    for name in ["customer_id", "runtime", "restore_snapshot"] {
        if !matches!(object.given(name), Given::Absent) {
            faults.add(name, "cannot be changed; create a new deployment");
        }
    }
    let mut required = |name: &'static str, chars| {
        if matches!(object.given(name), Given::Null) {
            faults.add(name, "must be a string");
        }
        object.text(name, chars, &mut faults)
    };
    let name = required("name", 1..=MAX_NAME_CHARS);
    let system_prompt = required("system_prompt", 0..=MAX_PROMPT_CHARS);
    let changes = changes(&mut object, settings, &mut faults);
    object.finish(&mut faults);
    faults.check()?;
    Ok(Changes { name, system_prompt, ..changes })
}

/// What both bodies have.
fn changes(object: &mut Object<'_>, settings: &Settings, faults: &mut Faults) -> Changes {
    Changes {
        name: None,
        system_prompt: None,
        model: model(object, settings, faults),
        sandbox: sandbox(object, faults),
        features: features(object, faults),
        metadata: metadata(object, faults),
        secrets: secrets(object, faults),
        mcp_servers: object
            .objects("mcp_servers", MAX_MCP_SERVERS, faults)
            .map(|given| given.into_iter().filter_map(|one| mcp_servers::parse_new(one, faults)).collect()),
        skills: object
            .objects("skills", MAX_SKILLS, faults)
            .map(|given| given.into_iter().filter_map(|one| skills::parse_new(one, faults)).collect()),
        budget: budget(object, faults),
        steering: steering(object, faults),
        dreaming: dreaming(object, faults),
        fallback_models: fallback_models(object, settings, faults),
    }
}

/// Reads what is said of one value: `read` gives it, or says what it must be.
pub(super) fn change<T>(
    object: &mut Object<'_>,
    name: &'static str,
    faults: &mut Faults,
    read: impl FnOnce(&Value) -> Result<T, String>,
) -> Change<T> {
    match object.given(name) {
        Given::Absent => Change::Keep,
        Given::Null => Change::Reset,
        Given::Value(value) => match read(value) {
            Ok(value) => Change::Set(value),
            Err(message) => {
                faults.add(object.path_to(name), message);
                Change::Keep
            }
        },
    }
}

/// Reads an object whose fields are changed one by one; `null` resets them all, as `reset` has it.
pub(super) fn group<T: Default>(
    object: &mut Object<'_>,
    name: &'static str,
    faults: &mut Faults,
    reset: impl FnOnce() -> T,
    read: impl FnOnce(&mut Object<'_>, &mut Faults) -> T,
) -> T {
    match object.given(name) {
        Given::Absent => T::default(),
        Given::Null => reset(),
        Given::Value(_) => {
            let mut within = object.object(name, faults);
            let changes = read(&mut within, faults);
            within.finish(faults);
            changes
        }
    }
}

pub(super) fn boolean(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "must be true or false".to_owned())
}

pub(super) fn whole(least: u64, most: u64) -> impl FnOnce(&Value) -> Result<u64, String> {
    move |value| {
        let number = value.as_u64().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| format!("must be a whole number from {least} to {most}"))
    }
}

pub(super) fn number(least: f64, most: f64) -> impl FnOnce(&Value) -> Result<Number, String> {
    move |value| {
        let number =
            value.as_number().filter(|number| number.as_f64().is_some_and(|n| (least..=most).contains(&n)));
        number.cloned().ok_or_else(|| format!("must be a number from {least} to {most}"))
    }
}

fn choice<T: Copy>(choices: &'static [(&'static str, T)]) -> impl FnOnce(&Value) -> Result<T, String> {
    move |value| {
        let chosen = choices.iter().find(|(text, _)| value.as_str() == Some(text));
        chosen.map(|(_, chosen)| *chosen).ok_or_else(|| {
            let texts: Vec<&str> = choices.iter().map(|(text, _)| *text).collect();
            format!("must be one of: {}", texts.join(", "))
        })
    }
}

fn model_name(text: &str, settings: &Settings) -> Result<ModelName, String> {
    let parsed = ModelName::parse(text).filter(|name| settings.providers.contains(&name.provider));
    let fits = text.chars().count() <= MAX_NAME_CHARS && !text.contains(char::is_control);
    parsed.filter(|_| fits).ok_or_else(|| {
        format!("must be provider/model, with one of the providers: {}", settings.providers.join(", "))
    })
}

fn model(object: &mut Object<'_>, settings: &Settings, faults: &mut Faults) -> Change<ModelName> {
    change(object, "model", faults, |value| match value.as_str() {
        Some(text) => model_name(text, settings),
        None => Err("must be a string".to_owned()),
    })
}

fn fallback_models(
    object: &mut Object<'_>,
    settings: &Settings,
    faults: &mut Faults,
) -> Option<Vec<ModelName>> {
    let texts = object.texts("fallback_models", MAX_FALLBACK_MODELS, faults)?.unwrap_or_default();
    let mut models = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match model_name(text, settings) {
            Ok(name) => models.push(name),
            Err(message) => faults.add(format!("fallback_models[{index}]"), message),
        }
    }
    Some(models)
}

fn features(object: &mut Object<'_>, faults: &mut Faults) -> FeatureChanges {
    let reset = || FeatureChanges {
        memory: Change::Reset,
        dreaming: Change::Reset,
        automations: Change::Reset,
        steering: Change::Reset,
        filesystem_webhooks: Change::Reset,
    };
    group(object, "features", faults, reset, |features, faults| FeatureChanges {
        memory: change(features, "memory", faults, boolean),
        dreaming: change(features, "dreaming", faults, boolean),
        automations: change(features, "automations", faults, boolean),
        steering: change(features, "steering", faults, boolean),
        filesystem_webhooks: change(features, "filesystem_webhooks", faults, boolean),
    })
}

fn budget(object: &mut Object<'_>, faults: &mut Faults) -> BudgetChanges {
    let reset = || BudgetChanges { max_credits_per_run: Change::Reset, max_credits_per_day: Change::Reset };
    group(object, "budget", faults, reset, |budget, faults| BudgetChanges {
        max_credits_per_run: change(budget, "max_credits_per_run", faults, number(0.0, MAX_CREDITS)),
        max_credits_per_day: change(budget, "max_credits_per_day", faults, number(0.0, MAX_CREDITS)),
    })
}

fn steering(object: &mut Object<'_>, faults: &mut Faults) -> SteeringChanges {
    const ON_EXPIRY: [(&str, OnExpiry); 3] =
        [("deny", OnExpiry::Deny), ("approve", OnExpiry::Approve), ("fail", OnExpiry::Fail)];
    let reset = || SteeringChanges { expires_after_s: Change::Reset, on_expiry: Change::Reset };
    group(object, "steering", faults, reset, |steering, faults| SteeringChanges {
        expires_after_s: change(steering, "expires_after_s", faults, whole(1, MAX_EXPIRY_S)),
        on_expiry: change(steering, "on_expiry", faults, choice(&ON_EXPIRY)),
    })
}

fn dreaming(object: &mut Object<'_>, faults: &mut Faults) -> Change<DreamingMode> {
    const MODES: [(&str, DreamingMode); 2] = [("auto", DreamingMode::Auto), ("review", DreamingMode::Review)];
    group(
        object,
        "dreaming",
        faults,
        || Change::Reset,
        |dreaming, faults| change(dreaming, "mode", faults, choice(&MODES)),
    )
}

/// A map of which each key is set or removed.
fn map<T>(
    object: &mut Object<'_>,
    name: &'static str,
    faults: &mut Faults,
    read: impl Fn(&str, &Value) -> Result<T, String>,
) -> MapChange<T> {
    let given = match object.given(name) {
        Given::Absent => return MapChange::default(),
        Given::Null => return MapChange::Clear,
        Given::Value(Value::Object(map)) if map.len() <= MAX_MAP_KEYS => map,
        Given::Value(_) => {
            let message =
                format!("must be an object of at most {MAX_MAP_KEYS} keys whose values are strings");
            faults.add(name, message);
            return MapChange::default();
        }
    };
    let mut changes = BTreeMap::new();
    for (key, value) in given {
        match value {
            Value::Null => drop(changes.insert(key.clone(), None)),
            value => match read(key, value) {
                Ok(value) => drop(changes.insert(key.clone(), Some(value))),
                Err(message) => faults.add(format!("{name}.{key}"), message),
            },
        }
    }
    MapChange::Merge(changes)
}

fn metadata(object: &mut Object<'_>, faults: &mut Faults) -> MapChange<String> {
    let changes = map(object, "metadata", faults, |key, value| {
        let Some(value) = value.as_str() else { return Err("must be a string".to_owned()) };
        if key.is_empty() || key.chars().count() > MAX_METADATA_KEY_CHARS {
            return Err(format!("a key must have 1 to {MAX_METADATA_KEY_CHARS} characters"));
        }
        if value.chars().count() > MAX_METADATA_VALUE_CHARS {
            return Err(format!("must have at most {MAX_METADATA_VALUE_CHARS} characters"));
        }
        if key.contains('\0') || value.contains('\0') {
            return Err("must not contain the character U+0000".to_owned());
        }
        Ok(value.to_owned())
    });
    if let MapChange::Merge(pairs) = &changes
        && pairs.values().flatten().count() > MAX_METADATA_PAIRS
    {
        faults.add("metadata", format!("must have at most {MAX_METADATA_PAIRS} pairs"));
    }
    changes
}

fn secrets(object: &mut Object<'_>, faults: &mut Faults) -> MapChange<herm_types::secret::SecretId> {
    map(object, "secrets", faults, |name, value| {
        if !is_variable(name) {
            return Err(
                "a secret's name must be that of an environment variable: letters, digits and _".to_owned()
            );
        }
        let id = value.as_str().map(str::parse);
        id.unwrap_or(Err(herm_types::secret::InvalidSecretId)).map_err(|error| error.to_string())
    })
}
