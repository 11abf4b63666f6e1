//! The body of a create, with every fault it may have.

use std::collections::BTreeMap;

use herm_app::Settings;
use herm_app::deployments::{Create, CreateSandbox};
use herm_types::deployment::{Features, RUNTIME, SandboxType};
use herm_types::model::ModelName;
use herm_types::{Error, ErrorCode};
use serde_json::Value;

use crate::input::{Faults, Object};

const MAX_NAME_CHARS: usize = 256;
const MAX_PROMPT_CHARS: usize = 100_000;
const MAX_METADATA_PAIRS: usize = 16;
const MAX_METADATA_KEY_CHARS: usize = 64;
const MAX_METADATA_VALUE_CHARS: usize = 512;

/// The shape of the body, for the OpenAPI document; [`parse`] reads it.
#[derive(utoipa::ToSchema)]
#[schema(as = CreateDeployment)]
#[expect(dead_code, reason = "it is the shape alone: the body is read field by field to find all its faults")]
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
    sandbox: Option<CreateSandboxSchema>,
    features: Option<CreateFeatures>,
    /// At most 16 pairs; keys of at most 64 characters, values of at most 512.
    metadata: Option<BTreeMap<String, String>>,
    /// Environment-variable name to secret id.
    secrets: Option<BTreeMap<String, String>>,
}

#[derive(utoipa::ToSchema)]
#[schema(as = CreateSandbox)]
#[expect(dead_code, reason = "it is the shape alone")]
pub(crate) struct CreateSandboxSchema {
    #[schema(default = true)]
    enabled: Option<bool>,
    #[serde(rename = "type")]
    #[schema(default = "docker")]
    kind: Option<SandboxType>,
    #[schema(default = true)]
    persistent_filesystem: Option<bool>,
}

#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it is the shape alone")]
pub(crate) struct CreateFeatures {
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

/// Reads the body.
///
/// # Errors
/// `validation_error` with every fault; if there is none, `invalid_secret_ref` for a secret that does not exist.
pub(super) fn parse(body: &Value, settings: &Settings) -> Result<Create, Error> {
    let mut faults = Faults::default();
    let mut object = Object::of_body(body, &mut faults);
    let customer_id = object.required_text("customer_id", 1..=MAX_NAME_CHARS, &mut faults);
    let name = object.required_text("name", 1..=MAX_NAME_CHARS, &mut faults);
    let system_prompt = object.required_text("system_prompt", 0..=MAX_PROMPT_CHARS, &mut faults);
    object.choice("runtime", &[(RUNTIME, ())], &mut faults);
    let model = model(&mut object, settings, &mut faults);
    let sandbox = sandbox(&mut object, &mut faults);
    let features = features(&mut object, &mut faults);
    let metadata = metadata(&mut object, &mut faults);
    let secrets = object.text_map("secrets", &mut faults);
    for name in
        ["mcp_servers", "skills", "budget", "steering", "dreaming", "fallback_models", "restore_snapshot"]
    {
        object.not_supported_yet(name, &mut faults);
    }
    object.finish(&mut faults);
    faults.check()?;
    if let Some((name, secret_id)) = secrets.iter().next() {
        let message = format!("secrets.{name}: no secret {secret_id:?} exists in this account.");
        return Err(Error::new(ErrorCode::InvalidSecretRef, message));
    }
    let (Some(customer_id), Some(name), Some(system_prompt)) = (customer_id, name, system_prompt) else {
        return Err(Error::invalid(Vec::new()));
    };
    Ok(Create { customer_id, name, system_prompt, model, sandbox, features, metadata })
}

fn model(object: &mut Object<'_>, settings: &Settings, faults: &mut Faults) -> ModelName {
    let Some(text) = object.text("model", 1..=MAX_NAME_CHARS, faults) else {
        return settings.default_model.clone();
    };
    let parsed = ModelName::parse(&text);
    if parsed.as_ref().is_none_or(|name| !settings.providers.contains(&name.provider)) {
        let known = settings.providers.join(", ");
        faults.add("model", format!("must be provider/model, with one of the providers: {known}"));
    }
    parsed.unwrap_or_else(|| settings.default_model.clone())
}

fn sandbox(object: &mut Object<'_>, faults: &mut Faults) -> CreateSandbox {
    let mut sandbox = object.object("sandbox", faults);
    let types = [("docker", SandboxType::Docker), ("local", SandboxType::Local)];
    let asked = CreateSandbox {
        enabled: sandbox.boolean("enabled", true, faults),
        kind: sandbox.choice("type", &types, faults).unwrap_or(SandboxType::Docker),
        persistent_filesystem: sandbox.boolean("persistent_filesystem", true, faults),
    };
    if !asked.persistent_filesystem {
        faults.add(
            "sandbox.persistent_filesystem",
            "false is not supported by this version of Herm; leave it out",
        );
    }
    for name in ["image", "cpu", "memory_mb", "disk_mb", "idle_timeout_s", "egress"] {
        sandbox.not_supported_yet(name, faults);
    }
    sandbox.finish(faults);
    asked
}

fn features(object: &mut Object<'_>, faults: &mut Faults) -> Features {
    let default = Features::default();
    let mut features = object.object("features", faults);
    let asked = Features {
        memory: features.boolean("memory", default.memory, faults),
        dreaming: features.boolean("dreaming", default.dreaming, faults),
        automations: features.boolean("automations", default.automations, faults),
        steering: features.boolean("steering", default.steering, faults),
        filesystem_webhooks: features.boolean("filesystem_webhooks", default.filesystem_webhooks, faults),
    };
    features.finish(faults);
    asked
}

fn metadata(object: &mut Object<'_>, faults: &mut Faults) -> BTreeMap<String, String> {
    let metadata = object.text_map("metadata", faults);
    if metadata.len() > MAX_METADATA_PAIRS {
        faults
            .add("metadata", format!("must have at most {MAX_METADATA_PAIRS} pairs, not {}", metadata.len()));
    }
    for (key, value) in &metadata {
        if key.is_empty() || key.chars().count() > MAX_METADATA_KEY_CHARS {
            faults.add("metadata", format!("each key must have 1 to {MAX_METADATA_KEY_CHARS} characters"));
        }
        if value.chars().count() > MAX_METADATA_VALUE_CHARS {
            let limit = format!("must have at most {MAX_METADATA_VALUE_CHARS} characters");
            faults.add(format!("metadata.{key}"), limit);
        }
        if key.contains('\0') || value.contains('\0') {
            faults.add(format!("metadata.{key}"), "must not contain the character U+0000");
        }
    }
    metadata
}
