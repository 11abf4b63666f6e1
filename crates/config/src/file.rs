//! The configuration file, taken apart: settings at the top, one table for each provider.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::setting::{PROVIDERS_KEY, SETTINGS, nearest};
use crate::{Error, Origin};

/// A value as written; numbers and booleans become text, as they would be in a variable.
#[derive(Debug)]
pub(crate) enum FileValue {
    Text(String),
    List(Vec<String>),
}

/// The key of a provider's table under which its models are named.
pub(crate) const MODELS_KEY: &str = "models";

/// One `[providers.NAME]`.
#[derive(Debug, Default)]
pub(crate) struct ProviderTable {
    pub(crate) kind: Option<String>,
    pub(crate) base_url: Option<String>,
    pub(crate) api_key_env: Option<String>,
    pub(crate) models: Vec<String>,
}

impl ProviderTable {
    const KEYS: [&str; 4] = ["kind", "base_url", "api_key_env", MODELS_KEY];

    fn parse(path: &Path, name: &str, table: Table) -> Result<Self, Error> {
        let mut parsed = Self::default();
        for (key, value) in table {
            let origin = provider_origin(path, name, &key);
            if key == MODELS_KEY {
                parsed.models = texts(value).ok_or_else(|| Error::Invalid {
                    origin,
                    reason: "write a list of strings, each in quotes".to_owned(),
                })?;
                continue;
            }
            let slot = match key.as_str() {
                "kind" => &mut parsed.kind,
                "base_url" => &mut parsed.base_url,
                "api_key_env" => &mut parsed.api_key_env,
                _ => {
                    let nearest = nearest(&key, Self::KEYS);
                    return Err(Error::Unknown { origin, nearest });
                }
            };
            let Value::String(text) = value else {
                return Err(Error::Invalid { origin, reason: "write a string in quotes".to_owned() });
            };
            *slot = Some(text);
        }
        Ok(parsed)
    }
}

#[derive(Debug)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    values: BTreeMap<String, FileValue>,
    pub(crate) providers: BTreeMap<String, ProviderTable>,
}

impl File {
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| Error::Syntax {
            path: path.to_owned(),
            line: error.span().and_then(|span| line_of(text, span.start)),
            reason: error.message().to_owned(),
        })?;
        let mut file = Self { path: path.to_owned(), values: BTreeMap::new(), providers: BTreeMap::new() };
        for (key, value) in table {
            if key == PROVIDERS_KEY {
                file.providers = parse_providers(path, value)?;
            } else if SETTINGS.iter().any(|setting| setting.key == key) {
                let value = parse_value(value).map_err(|reason| Error::Invalid {
                    origin: file.origin(&key),
                    reason: reason.to_owned(),
                })?;
                file.values.insert(key, value);
            } else {
                let known = SETTINGS.iter().map(|setting| setting.key).chain([PROVIDERS_KEY]);
                return Err(Error::Unknown { origin: file.origin(&key), nearest: nearest(&key, known) });
            }
        }
        Ok(file)
    }

    pub(crate) fn value(&self, key: &str) -> Option<&FileValue> {
        self.values.get(key)
    }

    /// The variables that hold the providers' keys.
    pub(crate) fn key_variables(&self) -> impl Iterator<Item = &str> {
        self.providers.values().filter_map(|provider| provider.api_key_env.as_deref())
    }

    pub(crate) fn origin(&self, key: &str) -> Origin {
        Origin::File { path: self.path.clone(), key: key.to_owned() }
    }
}

/// Where a key of a provider stands.
pub(crate) fn provider_origin(path: &Path, name: &str, key: &str) -> Origin {
    Origin::File { path: path.to_owned(), key: format!("{PROVIDERS_KEY}.{name}.{key}") }
}

fn parse_providers(path: &Path, value: Value) -> Result<BTreeMap<String, ProviderTable>, Error> {
    let not_a_table = |key: String| Error::Invalid {
        origin: Origin::File { path: path.to_owned(), key },
        reason: "write a table: [providers.NAME] with kind, base_url and api_key_env".to_owned(),
    };
    let Value::Table(tables) = value else { return Err(not_a_table(PROVIDERS_KEY.to_owned())) };
    let mut providers = BTreeMap::new();
    for (name, value) in tables {
        let Value::Table(table) = value else { return Err(not_a_table(format!("{PROVIDERS_KEY}.{name}"))) };
        let provider = ProviderTable::parse(path, &name, table)?;
        providers.insert(name, provider);
    }
    Ok(providers)
}

fn parse_value(value: Value) -> Result<FileValue, &'static str> {
    match value {
        Value::String(text) => Ok(FileValue::Text(text)),
        Value::Integer(number) => Ok(FileValue::Text(number.to_string())),
        Value::Boolean(flag) => Ok(FileValue::Text(flag.to_string())),
        Value::Array(_) => texts(value).map(FileValue::List).ok_or("write a list of strings, each in quotes"),
        Value::Float(_) | Value::Datetime(_) | Value::Table(_) => {
            Err("write a string in quotes, a whole number or a list of strings")
        }
    }
}

/// A list of strings; `None` if it is something else.
fn texts(value: Value) -> Option<Vec<String>> {
    let Value::Array(items) = value else { return None };
    let text = |item| if let Value::String(text) = item { Some(text) } else { None };
    items.into_iter().map(text).collect()
}

fn line_of(text: &str, at: usize) -> Option<usize> {
    Some(text.get(..at)?.matches('\n').count() + 1)
}
