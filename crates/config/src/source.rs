//! Looking a setting up: the first source that has it wins, and the value remembers where it stood.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};

use crate::file::{File, FileValue};
use crate::setting::{self, PREFIX, Setting, known_variables, nearest};
use crate::{Error, Flags, Origin};

/// A value and where it came from.
pub(crate) struct Found<T> {
    pub(crate) value: T,
    pub(crate) origin: Origin,
}

impl<T> Found<T> {
    /// The error that this value cannot be used.
    pub(crate) fn invalid(&self, reason: impl Into<String>) -> Error {
        Error::Invalid { origin: self.origin.clone(), reason: reason.into() }
    }
}

impl Found<String> {
    /// The value as a `T`, or an error that repeats the value and says what is `expected`. Not for secrets.
    pub(crate) fn parse<T: FromStr>(&self, expected: &str) -> Result<T, Error> {
        self.value.parse().map_err(|_| self.not(expected))
    }

    /// The value as one of a few words.
    pub(crate) fn choose<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, Error> {
        words.iter().find(|(word, _)| *word == self.value).map(|(_, choice)| *choice).ok_or_else(|| {
            let words: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            self.not(&format!("one of {}", words.join(", ")))
        })
    }

    /// The value as a number within limits.
    pub(crate) fn number(&self, limits: std::ops::RangeInclusive<u64>) -> Result<u64, Error> {
        let expected = format!("a whole number from {} to {}", limits.start(), limits.end());
        let number: u64 = self.parse(&expected)?;
        if limits.contains(&number) { Ok(number) } else { Err(self.not(&expected)) }
    }

    pub(crate) fn not(&self, expected: &str) -> Error {
        self.invalid(format!("`{}` is not what it takes; write {expected}", self.value))
    }

    pub(crate) fn into_secret(self) -> SecretString {
        SecretString::from(self.value)
    }
}

/// All sources together.
pub(crate) struct Sources<'a> {
    flags: &'a Flags,
    env: &'a BTreeMap<String, String>,
    file: Option<File>,
}

impl<'a> Sources<'a> {
    /// Refuses the environment if it has a variable that begins like ours and is not.
    pub(crate) fn new(
        flags: &'a Flags,
        env: &'a BTreeMap<String, String>,
        file: Option<File>,
    ) -> Result<Self, Error> {
        let sources = Self { flags, env, file };
        let known = known_variables();
        // An operator may give a provider's key a name of ours.
        let named: BTreeSet<&str> = sources.file.iter().flat_map(File::key_variables).collect();
        let ours = env.keys().filter(|name| name.starts_with(PREFIX));
        for name in ours {
            if !known.contains(name.as_str()) && !named.contains(name.as_str()) {
                let settings = known.iter().copied().filter(|name| name.starts_with(PREFIX));
                return Err(Error::Unknown {
                    origin: Origin::Variable(name.clone()),
                    nearest: nearest(name, settings),
                });
            }
        }
        Ok(sources)
    }

    pub(crate) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// A setting of one value. An empty variable counts as not set, as compose files make them.
    pub(crate) fn text(&self, setting: &'static Setting) -> Result<Option<Found<String>>, Error> {
        if let Some(found) = self.flag(setting).transpose()? {
            return Ok(Some(found));
        }
        if let Some(found) = self.variable(setting.variable) {
            return Ok(Some(found));
        }
        let Some(file) = &self.file else { return Ok(None) };
        let origin = file.origin(setting.key);
        match file.value(setting.key) {
            None => Ok(None),
            Some(FileValue::Text(value)) => Ok(Some(Found { value: value.clone(), origin })),
            Some(FileValue::List(_)) => {
                Err(Error::Invalid { origin, reason: "this takes one value, not a list".to_owned() })
            }
        }
    }

    /// A setting of several values: a list in the file, separated by commas elsewhere. Here an empty
    /// variable is an empty list, so that it can take back what the file allows.
    pub(crate) fn list(&self, setting: &'static Setting) -> Vec<Found<String>> {
        let (items, origin) = if let Some(text) = self.env.get(setting.variable) {
            (split(text), Origin::Variable(setting.variable.to_owned()))
        } else if let Some((file, value)) =
            self.file.as_ref().and_then(|file| Some((file, file.value(setting.key)?)))
        {
            let items = match value {
                FileValue::Text(text) => split(text),
                FileValue::List(items) => items.clone(),
            };
            (items, file.origin(setting.key))
        } else {
            return Vec::new();
        };
        items.into_iter().map(|value| Found { value, origin: origin.clone() }).collect()
    }

    /// Whether a setting is given by a variable or the file.
    pub(crate) fn is_given(&self, setting: &'static Setting) -> bool {
        let in_file = || self.file.as_ref().is_some_and(|file| file.value(setting.key).is_some());
        self.variable(setting.variable).is_some() || in_file()
    }

    /// A variable that is not empty.
    pub(crate) fn variable(&self, name: &str) -> Option<Found<String>> {
        let value = self.env.get(name).filter(|value| !value.is_empty())?;
        Some(Found { value: value.clone(), origin: Origin::Variable(name.to_owned()) })
    }

    fn flag(&self, setting: &'static Setting) -> Option<Result<Found<String>, Error>> {
        let flag = setting.flag?;
        let origin = Origin::Flag(flag);
        let value = if flag == setting::LISTEN.flag? {
            self.flags.listen.clone()?
        } else if flag == setting::DATABASE_URL.flag? {
            self.flags.database_url.as_ref()?.expose_secret().to_owned()
        } else {
            let Some(path) = self.flags.data_dir.as_ref()?.to_str() else {
                let reason = "the path is not valid UTF-8; choose another".to_owned();
                return Some(Err(Error::Invalid { origin, reason }));
            };
            path.to_owned()
        };
        Some(Ok(Found { value, origin }))
    }
}

fn split(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}
