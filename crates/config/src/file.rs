//! Parses the configuration file. It contains settings at the top level, and one table per model provider.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::setting::{PROVIDERS_KEY, SETTINGS, nearest};
use crate::{Error, Location};

/// The value of a setting in the configuration file. Numbers and booleans are converted to text, so that they
/// can be parsed in the same way as the values of environment variables.
#[derive(Debug)]
pub(crate) enum FileValue {
    Text(String),
    List(Vec<String>),
}

/// The key of the model list in a provider's table.
pub(crate) const MODELS_KEY: &str = "models";

/// The content of a table `[providers.NAME]`.
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
            let location = provider_location(path, name, &key);
            if key == MODELS_KEY {
                parsed.models = texts(value).ok_or_else(|| Error::Invalid {
                    location,
                    reason: "expected a list of strings in quotes".to_owned(),
                })?;
                continue;
            }
            let slot = match key.as_str() {
                "kind" => &mut parsed.kind,
                "base_url" => &mut parsed.base_url,
                "api_key_env" => &mut parsed.api_key_env,
                _ => {
                    let nearest = nearest(&key, Self::KEYS);
                    return Err(Error::Unknown { location, nearest });
                }
            };
            let Value::String(text) = value else {
                return Err(Error::Invalid { location, reason: "expected a string in quotes".to_owned() });
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
                    location: file.location(&key),
                    reason: reason.to_owned(),
                })?;
                file.values.insert(key, value);
            } else {
                let known = SETTINGS.iter().map(|setting| setting.key).chain([PROVIDERS_KEY]);
                return Err(Error::Unknown { location: file.location(&key), nearest: nearest(&key, known) });
            }
        }
        Ok(file)
    }

    pub(crate) fn value(&self, key: &str) -> Option<&FileValue> {
        self.values.get(key)
    }

    /// Returns the names of the environment variables that contain the API keys of providers.
    pub(crate) fn key_variables(&self) -> impl Iterator<Item = &str> {
        self.providers.values().filter_map(|provider| provider.api_key_env.as_deref())
    }

    pub(crate) fn location(&self, key: &str) -> Location {
        Location::File { path: self.path.clone(), key: key.to_owned() }
    }
}

/// Returns the location of a key in the table of a model provider, for error messages.
pub(crate) fn provider_location(path: &Path, name: &str, key: &str) -> Location {
    Location::File { path: path.to_owned(), key: format!("{PROVIDERS_KEY}.{name}.{key}") }
}

fn parse_providers(path: &Path, value: Value) -> Result<BTreeMap<String, ProviderTable>, Error> {
    let not_a_table = |key: String| Error::Invalid {
        location: Location::File { path: path.to_owned(), key },
        reason: "expected a table [providers.NAME] with kind, base_url and api_key_env".to_owned(),
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
        Value::Array(_) => texts(value).map(FileValue::List).ok_or("expected a list of strings in quotes"),
        Value::Float(_) | Value::Datetime(_) | Value::Table(_) => {
            Err("expected a string in quotes, a whole number, a boolean or a list of strings")
        }
    }
}

/// Returns the strings of a TOML list, or `None` if the value is not a list of strings.
fn texts(value: Value) -> Option<Vec<String>> {
    let Value::Array(items) = value else { return None };
    let text = |item| if let Value::String(text) = item { Some(text) } else { None };
    items.into_iter().map(text).collect()
}

fn line_of(text: &str, at: usize) -> Option<usize> {
    Some(text.get(..at)?.matches('\n').count() + 1)
}
