//! Model providers and the default model.
//!
//! Three providers are built in; a table of the same name in the file changes one, any other adds one. A
//! provider is known with or without a key: what is missing is said when a run needs it.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use herm_types::model::ModelName;
use secrecy::SecretString;

use crate::address::http_base;
use crate::file::{MODELS_KEY, ProviderTable, provider_origin};
use crate::setting::{self, PREFIX, Setting, known_variables};
use crate::source::{Found, Sources};
use crate::{Error, Origin};

/// The provider that answers from a canned script and needs no key. No provider can be configured under
/// this name.
pub const DEMO_PROVIDER: &str = "demo";
/// The one model of [`DEMO_PROVIDER`], as clients write it.
pub const DEMO_MODEL: &str = "demo/tour";

const DEFAULT_PROVIDER: &str = "anthropic";
const DEFAULT_MODEL: &str = "claude-sonnet-4.5";
/// Most providers in the file; each is listed to clients and checked at start.
const MAX_PROVIDERS: usize = 64;
/// Longest name of a provider, in bytes; it begins every model name that uses it.
const MAX_PROVIDER_NAME_BYTES: usize = 64;
/// Most models that are listed of one provider.
const MAX_LISTED_MODELS: usize = 256;
const DEFAULT_FIRST_BYTE: Duration = Duration::from_secs(300);
const DEFAULT_SILENCE: Duration = Duration::from_secs(120);
/// How long a provider may be waited for, in seconds: an hour is as good as never.
const WAIT_S: RangeInclusive<u64> = 1..=3600;
/// Longest model name, provider included, in bytes.
const MAX_MODEL_NAME_BYTES: usize = 256;

/// The wire format that a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProviderKind {
    /// Anthropic Messages: `POST {base_url}/v1/messages`.
    Anthropic,
    /// OpenAI Chat Completions: `POST {base_url}/chat/completions`.
    OpenAiChat,
}

impl ProviderKind {
    /// The word for it in the configuration file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenAiChat => "openai_chat",
        }
    }

    fn load(found: &Found<String>) -> Result<Self, Error> {
        if found.value == "openai_responses" {
            return Err(found.invalid(
                "OpenAI Responses is not supported yet; write `openai_chat` if the provider speaks Chat Completions too",
            ));
        }
        let kinds = [Self::Anthropic, Self::OpenAiChat].map(|kind| (kind.as_str(), kind));
        found.choose(&kinds)
    }
}

/// Where models are called.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The part of a model name before its first `/`.
    pub name: String,
    /// The wire format it speaks.
    pub kind: ProviderKind,
    /// What paths are appended to, without a last `/`.
    pub base_url: String,
    /// What requests carry; `None`: nothing is set, which servers on one's own machine may accept.
    pub api_key: Option<SecretString>,
    /// The variable the key was looked for in, for messages that say what to set; `None` if the provider
    /// takes no key.
    pub api_key_env: Option<String>,
    /// Models that the operator names, without the provider: they are listed to clients, and others may be named all
    /// the same.
    pub models: Vec<String>,
}

impl Provider {
    /// Whether it can be called: its key is there, or it takes none.
    pub fn has_key(&self) -> bool {
        self.api_key.is_some() || self.api_key_env.is_none()
    }
}

/// Model providers and the default model.
#[derive(Clone, Debug)]
pub struct Models {
    /// The model of deployments that name none; its provider is known.
    pub default_model: ModelName,
    /// Every provider but `demo`: the built-in ones first, then the file's by name.
    pub providers: Vec<Provider>,
    /// How long a provider may take until it begins to answer.
    pub first_byte: Duration,
    /// How long a provider may say nothing in the middle of an answer.
    pub silence: Duration,
}

impl Models {
    /// The provider of this name; `None` also for `demo`, which has no address.
    pub fn provider(&self, name: &str) -> Option<&Provider> {
        self.providers.iter().find(|provider| provider.name == name)
    }

    /// Whether a model name may begin with this, be there a key or not.
    pub fn is_known(&self, name: &str) -> bool {
        name == DEMO_PROVIDER || self.provider(name).is_some()
    }

    pub(crate) fn load(sources: &Sources<'_>) -> Result<Self, Error> {
        let mut models = Self {
            default_model: built_in_default(),
            providers: providers(sources)?,
            first_byte: wait(sources, &setting::MODEL_FIRST_BYTE_S)?.unwrap_or(DEFAULT_FIRST_BYTE),
            silence: wait(sources, &setting::MODEL_SILENCE_S)?.unwrap_or(DEFAULT_SILENCE),
        };
        if let Some(found) = sources.text(&setting::DEFAULT_MODEL)? {
            models.default_model = model_name(&found)?;
            if !models.is_known(&models.default_model.provider) {
                return Err(found.invalid(models.unknown_provider()));
            }
        }
        Ok(models)
    }

    fn unknown_provider(&self) -> String {
        let known: Vec<&str> = self.providers.iter().map(|provider| provider.name.as_str()).collect();
        format!(
            "there is no provider `{}`; there are {} and {DEMO_PROVIDER}, and others can be added under \
             [providers.NAME] in the configuration file",
            self.default_model.provider,
            known.join(", ")
        )
    }
}

/// A provider that needs no table in the file.
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
            return Err(Error::Invalid { origin: file.origin(setting::PROVIDERS_KEY), reason });
        }
        providers.push(added_provider(sources, &file.path, name, table)?);
    }
    Ok(providers)
}

/// A built-in provider: its variable before the file before what is built in.
fn built_in_provider(
    sources: &Sources<'_>,
    built_in: &BuiltIn,
    table: &ProviderTable,
) -> Result<Provider, Error> {
    let entry = |key, value: &Option<String>| file_entry(sources, built_in.name, key, value.as_ref());
    let kind = entry("kind", &table.kind).map(|found| ProviderKind::load(&found)).transpose()?;
    let base_url = sources.variable(built_in.base_url_env).or_else(|| entry("base_url", &table.base_url));
    let base_url = base_url.map(|found| http_base(&found)).transpose()?;
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

/// A provider that the file alone describes.
fn added_provider(
    sources: &Sources<'_>,
    path: &Path,
    name: &str,
    table: &ProviderTable,
) -> Result<Provider, Error> {
    let entry = |key, value: &Option<String>| file_entry(sources, name, key, value.as_ref());
    let missing = |key, what: &str| Error::Invalid {
        origin: provider_origin(path, name, key),
        reason: format!("it is missing; write {what}"),
    };
    let kind = entry("kind", &table.kind)
        .ok_or_else(|| missing("kind", "`anthropic` or `openai_chat`, the wire format it speaks"))?;
    let base_url = entry("base_url", &table.base_url).ok_or_else(|| {
        missing("base_url", "where it is called, such as \"https://models.example.com/v1\"")
    })?;
    let api_key_env = entry("api_key_env", &table.api_key_env).map(key_variable).transpose()?;
    Ok(Provider {
        name: name.to_owned(),
        kind: ProviderKind::load(&kind)?,
        base_url: http_base(&base_url)?,
        api_key: api_key_env.as_deref().map_or(Ok(None), |variable| api_key(sources, variable))?,
        api_key_env,
        models: listed_models(sources, name, &table.models)?,
    })
}

/// The models that a table names, each usable as the second half of a model's name.
fn listed_models(sources: &Sources<'_>, name: &str, models: &[String]) -> Result<Vec<String>, Error> {
    let whole: String = models.join(", ");
    let Some(found) = file_entry(sources, name, MODELS_KEY, Some(&whole)) else { return Ok(Vec::new()) };
    if models.len() > MAX_LISTED_MODELS {
        return Err(found.invalid(format!("at most {MAX_LISTED_MODELS} models can be listed")));
    }
    for model in models {
        let usable = (1..MAX_MODEL_NAME_BYTES - MAX_PROVIDER_NAME_BYTES).contains(&model.len())
            && model.bytes().all(|byte| byte.is_ascii_graphic());
        if !usable {
            let reason =
                format!("`{model}` cannot be a model's name; write it as the provider does, such as gpt-5");
            return Err(found.invalid(reason));
        }
    }
    Ok(models.to_vec())
}

fn file_entry(sources: &Sources<'_>, name: &str, key: &str, value: Option<&String>) -> Option<Found<String>> {
    let path = &sources.file()?.path;
    Some(Found { value: value?.clone(), origin: provider_origin(path, name, key) })
}

/// The key in a variable; an empty one counts as not set.
fn api_key(sources: &Sources<'_>, variable: &str) -> Result<Option<SecretString>, Error> {
    let Some(found) = sources.variable(variable) else { return Ok(None) };
    // It travels in a header. A line break here is one that a shell or an editor left behind.
    if !found.value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(
            found.invalid("an API key holds no spaces, line breaks or special characters; set it again")
        );
    }
    Ok(Some(found.into_secret()))
}

/// The name of a variable. Messages do not repeat it, as it may be the key itself, put in the wrong place.
fn key_variable(found: Found<String>) -> Result<String, Error> {
    let usable = found.value.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && found.value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !usable {
        return Err(found.invalid(
            "write the name of the environment variable that holds the key, such as MY_API_KEY, not the key itself",
        ));
    }
    // Whatever it names is sent to the provider.
    if found.value.starts_with(PREFIX) && known_variables().contains(found.value.as_str()) {
        return Err(found.invalid(format!(
            "{} is a setting of the server and would be sent to the provider; use another variable",
            found.value
        )));
    }
    Ok(found.value)
}

fn check_name(path: &Path, name: &str) -> Result<(), Error> {
    let invalid = |reason: String| Error::Invalid {
        origin: Origin::File { path: path.to_owned(), key: format!("{}.{name}", setting::PROVIDERS_KEY) },
        reason,
    };
    if name == DEMO_PROVIDER {
        return Err(invalid(format!("`{DEMO_PROVIDER}` is the built-in canned script; choose another name")));
    }
    let usable = (1..=MAX_PROVIDER_NAME_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte));
    if usable {
        return Ok(());
    }
    Err(invalid(format!(
        "a provider's name has 1 to {MAX_PROVIDER_NAME_BYTES} characters of a-z, 0-9, - and _, as it begins \
         model names"
    )))
}

fn wait(sources: &Sources<'_>, setting: &'static Setting) -> Result<Option<Duration>, Error> {
    let Some(found) = sources.text(setting)? else { return Ok(None) };
    Ok(Some(Duration::from_secs(found.number(WAIT_S)?)))
}

fn built_in_default() -> ModelName {
    ModelName { provider: DEFAULT_PROVIDER.to_owned(), model: DEFAULT_MODEL.to_owned() }
}

fn model_name(found: &Found<String>) -> Result<ModelName, Error> {
    let expected = "provider/model, such as anthropic/claude-sonnet-4.5";
    let usable =
        found.value.len() <= MAX_MODEL_NAME_BYTES && found.value.bytes().all(|byte| byte.is_ascii_graphic());
    ModelName::parse(&found.value).filter(|_| usable).ok_or_else(|| found.not(expected))
}
