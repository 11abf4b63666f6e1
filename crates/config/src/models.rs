//! The settings of model providers, and the default model.
//!
//! Three providers are built in. A table `[providers.NAME]` in the configuration file changes the built-in
//! provider with this name, or adds a provider. A missing API key is not an error at startup. It becomes an
//! error when a run needs the provider.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use herm_types::model::ModelName;
use secrecy::SecretString;

use crate::base_url::http_base_url;
use crate::file::{MODELS_KEY, ProviderTable, provider_location};
use crate::setting::{self, PREFIX, Setting, known_variables};
use crate::source::{Sourced, Sources};
use crate::{Error, Location};

/// The name of the built-in provider that replies from a fixed script and needs no key. No other provider can
/// have this name.
pub const DEMO_PROVIDER: &str = "demo";
/// The only model of [`DEMO_PROVIDER`], in the form `provider/model`.
pub const DEMO_MODEL: &str = "demo/tour";

const DEFAULT_PROVIDER: &str = "anthropic";
const DEFAULT_MODEL: &str = "claude-sonnet-4.5";
/// The maximum number of providers in the configuration file. More are rejected, because each one is checked
/// at startup and shown to clients.
const MAX_PROVIDERS: usize = 64;
/// The maximum length of a provider name in bytes. A longer name is rejected, because it would leave too
/// little of [`MAX_MODEL_NAME_BYTES`] for the rest of a model name.
const MAX_PROVIDER_NAME_BYTES: usize = 64;
/// The maximum number of models that the configuration may list per provider. More are rejected.
const MAX_LISTED_MODELS: usize = 256;
const DEFAULT_FIRST_BYTE: Duration = Duration::from_secs(300);
const DEFAULT_SILENCE: Duration = Duration::from_secs(120);
/// The allowed range of a provider timeout in seconds. More than an hour would have the same effect as no
/// timeout.
const TIMEOUT_S: RangeInclusive<u64> = 1..=3600;
/// The maximum length of a model name in bytes, including the provider and the `/`. A longer name is
/// rejected.
const MAX_MODEL_NAME_BYTES: usize = 256;

/// The wire format of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProviderKind {
    /// Anthropic Messages: `POST {base_url}/v1/messages`.
    Anthropic,
    /// OpenAI Chat Completions: `POST {base_url}/chat/completions`.
    OpenAiChat,
}

impl ProviderKind {
    /// Returns the name of this wire format, which is the value of the key `kind` in the configuration file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenAiChat => "openai_chat",
        }
    }

    fn load(raw: &Sourced<String>) -> Result<Self, Error> {
        if raw.value == "openai_responses" {
            return Err(raw.invalid(
                "OpenAI Responses is not supported yet; use `openai_chat` if the provider also supports Chat Completions",
            ));
        }
        let kinds = [Self::Anthropic, Self::OpenAiChat].map(|kind| (kind.as_str(), kind));
        raw.choose(&kinds)
    }
}

/// A configured model provider.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The name of the provider: the part of a model name before the first `/`.
    pub name: String,
    /// The wire format of the provider.
    pub kind: ProviderKind,
    /// The base URL, to which request paths are appended. It has no trailing `/`.
    pub base_url: String,
    /// The API key. With `None`, requests are sent without a key, which many local servers accept.
    pub api_key: Option<SecretString>,
    /// The name of the environment variable that contains the API key, for messages about a missing key.
    /// `None` if the provider needs no key.
    pub api_key_env: Option<String>,
    /// The models that the configuration lists, without the provider name. Clients see this list, but may
    /// also use models that it does not contain.
    pub models: Vec<String>,
}

impl Provider {
    /// Returns true if the provider can be called, because its API key is set or it needs none.
    pub fn has_key(&self) -> bool {
        self.api_key.is_some() || self.api_key_env.is_none()
    }
}

/// The settings of model providers, and the default model.
#[derive(Clone, Debug)]
pub struct Models {
    /// The model for deployments that are created without specifying one. Its provider is always a known
    /// provider.
    pub default_model: ModelName,
    /// All providers except `demo`: the built-in ones first, then the added ones in alphabetical order.
    pub providers: Vec<Provider>,
    /// The maximum time from sending a request to receiving the provider's response headers. After this time,
    /// the request fails.
    pub first_byte: Duration,
    /// The maximum time between two chunks of a streamed reply. After this time, the request fails.
    pub silence: Duration,
}

impl Models {
    /// Returns the provider with this name. Returns `None` for `demo`, which is not a configured provider.
    pub fn provider(&self, name: &str) -> Option<&Provider> {
        self.providers.iter().find(|provider| provider.name == name)
    }

    /// Returns true if a provider with this name exists, even if its API key is missing. This includes
    /// `demo`.
    pub fn is_known(&self, name: &str) -> bool {
        name == DEMO_PROVIDER || self.provider(name).is_some()
    }

    pub(crate) fn load(sources: &Sources<'_>) -> Result<Self, Error> {
        let mut models = Self {
            default_model: built_in_default(),
            providers: providers(sources)?,
            first_byte: timeout(sources, &setting::MODEL_FIRST_BYTE_S)?.unwrap_or(DEFAULT_FIRST_BYTE),
            silence: timeout(sources, &setting::MODEL_SILENCE_S)?.unwrap_or(DEFAULT_SILENCE),
        };
        if let Some(raw) = sources.text(&setting::DEFAULT_MODEL)? {
            models.default_model = model_name(&raw)?;
            if !models.is_known(&models.default_model.provider) {
                return Err(raw.invalid(models.unknown_provider()));
            }
        }
        Ok(models)
    }

    fn unknown_provider(&self) -> String {
        let known: Vec<&str> = self.providers.iter().map(|provider| provider.name.as_str()).collect();
        format!(
            "unknown provider `{}`; known providers: {}, {DEMO_PROVIDER}. Add others under [providers.NAME] in \
             the configuration file",
            self.default_model.provider,
            known.join(", ")
        )
    }
}

/// A built-in provider, which exists without a table in the configuration file.
pub(crate) struct BuiltIn {
    name: &'static str,
    kind: ProviderKind,
    base_url: &'static str,
    pub(crate) base_url_env: &'static str,
    pub(crate) api_key_env: &'static str,
}

pub(crate) static BUILT_IN: [BuiltIn; 3] = [
    BuiltIn {
        name: "anthropic",
        kind: ProviderKind::Anthropic,
        base_url: "https://api.anthropic.com",
        base_url_env: "ANTHROPIC_BASE_URL",
        api_key_env: "ANTHROPIC_API_KEY",
    },
    BuiltIn {
        name: "openai",
        kind: ProviderKind::OpenAiChat,
        base_url: "https://api.openai.com/v1",
        base_url_env: "OPENAI_BASE_URL",
        api_key_env: "OPENAI_API_KEY",
    },
    BuiltIn {
        name: "openrouter",
        kind: ProviderKind::OpenAiChat,
        base_url: "https://openrouter.ai/api/v1",
        base_url_env: "OPENROUTER_BASE_URL",
        api_key_env: "OPENROUTER_API_KEY",
    },
];

fn providers(sources: &Sources<'_>) -> Result<Vec<Provider>, Error> {
    let unchanged = ProviderTable::default();
    let mut providers = Vec::new();
    for built_in in &BUILT_IN {
        let table = sources.file().and_then(|file| file.providers.get(built_in.name));
        providers.push(built_in_provider(sources, built_in, table.unwrap_or(&unchanged))?);
    }
    let Some(file) = sources.file() else { return Ok(providers) };
    let mut added = 0;
    for (name, table) in &file.providers {
        if BUILT_IN.iter().any(|built_in| built_in.name == name) {
            continue;
        }
        added += 1;
        check_name(&file.path, name)?;
        if added > MAX_PROVIDERS {
            let reason = format!("at most {MAX_PROVIDERS} providers can be added; remove some");
            return Err(Error::Invalid { location: file.location(setting::PROVIDERS_KEY), reason });
        }
        providers.push(added_provider(sources, &file.path, name, table)?);
    }
    Ok(providers)
}

/// Loads a built-in provider. Environment variables take precedence over the configuration file, and the file
/// over built-in values.
fn built_in_provider(
    sources: &Sources<'_>,
    built_in: &BuiltIn,
    table: &ProviderTable,
) -> Result<Provider, Error> {
    let entry = |key, value: &Option<String>| file_entry(sources, built_in.name, key, value.as_ref());
    let kind = entry("kind", &table.kind).map(|raw| ProviderKind::load(&raw)).transpose()?;
    let base_url = sources.variable(built_in.base_url_env).or_else(|| entry("base_url", &table.base_url));
    let base_url = base_url.map(|raw| http_base_url(&raw)).transpose()?;
    let api_key_env = entry("api_key_env", &table.api_key_env);
    let api_key_env = api_key_env.map(key_variable).transpose()?;
    let api_key_env = api_key_env.unwrap_or_else(|| built_in.api_key_env.to_owned());
    Ok(Provider {
        name: built_in.name.to_owned(),
        kind: kind.unwrap_or(built_in.kind),
        base_url: base_url.unwrap_or_else(|| built_in.base_url.to_owned()),
        api_key: api_key(sources, &api_key_env)?,
        api_key_env: Some(api_key_env),
        models: listed_models(sources, built_in.name, &table.models)?,
    })
}

/// Loads a provider that is not built in, from its table in the configuration file.
fn added_provider(
    sources: &Sources<'_>,
    path: &Path,
    name: &str,
    table: &ProviderTable,
) -> Result<Provider, Error> {
    let entry = |key, value: &Option<String>| file_entry(sources, name, key, value.as_ref());
    let missing = |key, expected: &str| Error::Invalid {
        location: provider_location(path, name, key),
        reason: format!("missing; set it to {expected}"),
    };
    let kind = entry("kind", &table.kind)
        .ok_or_else(|| missing("kind", "`anthropic` or `openai_chat`, the wire format of the provider"))?;
    let base_url = entry("base_url", &table.base_url).ok_or_else(|| {
        missing("base_url", "the URL of the provider, for example \"https://models.example.com/v1\"")
    })?;
    let api_key_env = entry("api_key_env", &table.api_key_env).map(key_variable).transpose()?;
    Ok(Provider {
        name: name.to_owned(),
        kind: ProviderKind::load(&kind)?,
        base_url: http_base_url(&base_url)?,
        api_key: api_key_env.as_deref().map_or(Ok(None), |variable| api_key(sources, variable))?,
        api_key_env,
        models: listed_models(sources, name, &table.models)?,
    })
}

/// Returns the models that the table of a provider lists. Fails if one of them cannot be part of a model
/// name.
fn listed_models(sources: &Sources<'_>, name: &str, models: &[String]) -> Result<Vec<String>, Error> {
    let whole: String = models.join(", ");
    let Some(raw) = file_entry(sources, name, MODELS_KEY, Some(&whole)) else { return Ok(Vec::new()) };
    if models.len() > MAX_LISTED_MODELS {
        return Err(raw.invalid(format!("at most {MAX_LISTED_MODELS} models can be listed; remove some")));
    }
    for model in models {
        let is_valid = (1..MAX_MODEL_NAME_BYTES - MAX_PROVIDER_NAME_BYTES).contains(&model.len())
            && model.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_valid {
            let reason = format!(
                "`{model}` is not a valid model name; use the name that the provider uses, for example gpt-5"
            );
            return Err(raw.invalid(reason));
        }
    }
    Ok(models.to_vec())
}

fn file_entry(
    sources: &Sources<'_>,
    name: &str,
    key: &str,
    value: Option<&String>,
) -> Option<Sourced<String>> {
    let path = &sources.file()?.path;
    Some(Sourced { value: value?.clone(), location: provider_location(path, name, key) })
}

/// Returns the API key in an environment variable. An empty variable counts as not set.
fn api_key(sources: &Sources<'_>, variable: &str) -> Result<Option<SecretString>, Error> {
    let Some(raw) = sources.variable(variable) else { return Ok(None) };
    // Reject a key that an HTTP header cannot contain. A shell or an editor has probably added a line break.
    if !raw.value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(raw
            .invalid("an API key must not contain spaces, line breaks or special characters; set it again"));
    }
    Ok(Some(raw.into_secret()))
}

/// Checks and returns the name of the environment variable that contains an API key. The error message for an
/// invalid name does not quote it, because it may be the key itself, entered by mistake.
fn key_variable(raw: Sourced<String>) -> Result<String, Error> {
    let is_valid = raw.value.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && raw.value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_valid {
        return Err(raw.invalid(
            "expected the name of the environment variable that contains the key, for example MY_API_KEY, not the key itself",
        ));
    }
    // Reject a variable that is a setting of the server. Its value would be sent to the provider as the API
    // key, and could be a secret of the server.
    if raw.value.starts_with(PREFIX) && known_variables().contains(raw.value.as_str()) {
        return Err(raw.invalid(format!(
            "{} is a setting of the server, and its value would be sent to the provider; use another variable",
            raw.value
        )));
    }
    Ok(raw.value)
}

fn check_name(path: &Path, name: &str) -> Result<(), Error> {
    let invalid = |reason: String| Error::Invalid {
        location: Location::File { path: path.to_owned(), key: format!("{}.{name}", setting::PROVIDERS_KEY) },
        reason,
    };
    if name == DEMO_PROVIDER {
        return Err(invalid(format!(
            "`{DEMO_PROVIDER}` is the name of the built-in demo provider; choose another name"
        )));
    }
    let is_valid = (1..=MAX_PROVIDER_NAME_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte));
    if is_valid {
        return Ok(());
    }
    Err(invalid(format!(
        "a provider name must have 1 to {MAX_PROVIDER_NAME_BYTES} characters from a-z, 0-9, - and _"
    )))
}

fn timeout(sources: &Sources<'_>, setting: &'static Setting) -> Result<Option<Duration>, Error> {
    let Some(raw) = sources.text(setting)? else { return Ok(None) };
    Ok(Some(Duration::from_secs(raw.number(TIMEOUT_S)?)))
}

fn built_in_default() -> ModelName {
    ModelName { provider: DEFAULT_PROVIDER.to_owned(), model: DEFAULT_MODEL.to_owned() }
}

fn model_name(raw: &Sourced<String>) -> Result<ModelName, Error> {
    let expected = "provider/model, for example anthropic/claude-sonnet-4.5";
    let is_valid =
        raw.value.len() <= MAX_MODEL_NAME_BYTES && raw.value.bytes().all(|byte| byte.is_ascii_graphic());
    ModelName::parse(&raw.value).filter(|_| is_valid).ok_or_else(|| raw.unexpected(expected))
}
