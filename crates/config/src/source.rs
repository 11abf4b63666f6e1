//! Reads a setting from the flags, the environment or the configuration file. The first of these sources that
//! contains the setting wins. Each value records where it came from, for error messages.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};

use crate::file::{File, FileValue};
use crate::setting::{self, PREFIX, Setting, known_variables, nearest};
use crate::{Error, Flags, Location};

/// The value of a setting, with the location from which it was read.
pub(crate) struct Sourced<T> {
    pub(crate) value: T,
    pub(crate) location: Location,
}

impl<T> Sourced<T> {
    /// Returns an error which says that this value is invalid. `reason` describes the problem and the remedy.
    pub(crate) fn invalid(&self, reason: impl Into<String>) -> Error {
        Error::Invalid { location: self.location.clone(), reason: reason.into() }
    }
}

impl Sourced<String> {
    /// Parses the value. The error message contains the value and `expected`, so this function must not be
    /// used for secrets.
    pub(crate) fn parse<T: FromStr>(&self, expected: &str) -> Result<T, Error> {
        self.value.parse().map_err(|_| self.unexpected(expected))
    }

    /// Parses the value as one of these words.
    pub(crate) fn choose<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, Error> {
        words.iter().find(|(word, _)| *word == self.value).map(|(_, choice)| *choice).ok_or_else(|| {
            let words: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            self.unexpected(&format!("one of {}", words.join(", ")))
        })
    }

    /// Parses the value as a whole number within these limits.
    pub(crate) fn number(&self, limits: std::ops::RangeInclusive<u64>) -> Result<u64, Error> {
        let expected = format!("a whole number from {} to {}", limits.start(), limits.end());
        let number: u64 = self.parse(&expected)?;
        if limits.contains(&number) { Ok(number) } else { Err(self.unexpected(&expected)) }
    }

    pub(crate) fn unexpected(&self, expected: &str) -> Error {
        self.invalid(format!("`{}` is not valid; expected {expected}", self.value))
    }

    pub(crate) fn into_secret(self) -> SecretString {
        SecretString::from(self.value)
    }
}

/// The sources of settings: flags, environment and configuration file.
pub(crate) struct Sources<'a> {
    flags: &'a Flags,
    env: &'a BTreeMap<String, String>,
    file: Option<File>,
}

impl<'a> Sources<'a> {
    /// Combines the sources. Fails if the environment contains an unknown variable with the prefix `HERM_`.
    pub(crate) fn new(
        flags: &'a Flags,
        env: &'a BTreeMap<String, String>,
        file: Option<File>,
    ) -> Result<Self, Error> {
        let sources = Self { flags, env, file };
        let known = known_variables();
        // The configuration file can name environment variables that contain the API keys of providers.
        // Accept these variables even if they have the prefix `HERM_`.
        let named: BTreeSet<&str> = sources.file.iter().flat_map(File::key_variables).collect();
        let prefixed = env.keys().filter(|name| name.starts_with(PREFIX));
        for name in prefixed {
            if !known.contains(name.as_str()) && !named.contains(name.as_str()) {
                let settings = known.iter().copied().filter(|name| name.starts_with(PREFIX));
                return Err(Error::Unknown {
                    location: Location::Variable(name.clone()),
                    nearest: nearest(name, settings),
                });
            }
        }
        Ok(sources)
    }

    pub(crate) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Returns the value of a setting. An empty environment variable counts as not set, because Docker
    /// Compose files often create empty variables.
    pub(crate) fn text(&self, setting: &'static Setting) -> Result<Option<Sourced<String>>, Error> {
        if let Some(raw) = self.flag(setting).transpose()? {
            return Ok(Some(raw));
        }
        if let Some(raw) = self.variable(setting.variable) {
            return Ok(Some(raw));
        }
        let Some(file) = &self.file else { return Ok(None) };
        let location = file.location(setting.key);
        match file.value(setting.key) {
            None => Ok(None),
            Some(FileValue::Text(value)) => Ok(Some(Sourced { value: value.clone(), location })),
            Some(FileValue::List(_)) => Err(Error::Invalid {
                location,
                reason: "a list is not allowed; expected one value".to_owned(),
            }),
        }
    }

    /// Returns the values of a setting that is a list. In the configuration file, the value is a list or a
    /// comma-separated string. In an environment variable, it is a comma-separated string. An empty variable
    /// means an empty list, so that it can override the list in the file.
    pub(crate) fn list(&self, setting: &'static Setting) -> Vec<Sourced<String>> {
        let (items, location) = if let Some(text) = self.env.get(setting.variable) {
            (split(text), Location::Variable(setting.variable.to_owned()))
        } else if let Some((file, value)) =
            self.file.as_ref().and_then(|file| Some((file, file.value(setting.key)?)))
        {
            let items = match value {
                FileValue::Text(text) => split(text),
                FileValue::List(items) => items.clone(),
            };
            (items, file.location(setting.key))
        } else {
            return Vec::new();
        };
        items.into_iter().map(|value| Sourced { value, location: location.clone() }).collect()
    }

    /// Returns true if an environment variable or the configuration file contains the setting.
    pub(crate) fn is_set(&self, setting: &'static Setting) -> bool {
        let in_file = || self.file.as_ref().is_some_and(|file| file.value(setting.key).is_some());
        self.variable(setting.variable).is_some() || in_file()
    }

    /// Returns the value of an environment variable, or `None` if it is empty or not set.
    pub(crate) fn variable(&self, name: &str) -> Option<Sourced<String>> {
        let value = self.env.get(name).filter(|value| !value.is_empty())?;
        Some(Sourced { value: value.clone(), location: Location::Variable(name.to_owned()) })
    }

    fn flag(&self, setting: &'static Setting) -> Option<Result<Sourced<String>, Error>> {
        let flag = setting.flag?;
        let location = Location::Flag(flag);
        let value = if flag == setting::LISTEN.flag? {
            self.flags.listen.clone()?
        } else if flag == setting::DATABASE_URL.flag? {
            self.flags.database_url.as_ref()?.expose_secret().to_owned()
        } else {
            let Some(path) = self.flags.data_dir.as_ref()?.to_str() else {
                let reason = "the path is not valid UTF-8; choose a different path".to_owned();
                return Some(Err(Error::Invalid { location, reason }));
            };
            path.to_owned()
        };
        Some(Ok(Sourced { value, location }))
    }
}

fn split(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}
