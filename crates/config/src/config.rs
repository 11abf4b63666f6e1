//! The whole configuration, and the order in which its sources count.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::file::File;
use crate::setting::WITHOUT_EFFECT;
use crate::source::Sources;
use crate::{Database, Error, Keys, Memory, Models, Network, Sandbox, Server, Telemetry};

/// The settings that have a command-line flag; `None` where the flag was not given.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--listen`
    pub listen: Option<String>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--database-url`; secret, as it may hold a password.
    pub database_url: Option<SecretString>,
    /// `--config`: the file to read in place of `herm.toml`.
    pub config: Option<PathBuf>,
}

/// Everything an operator can set, parsed and checked. Its `Debug` output shows no secret.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses, directories and limits of the server.
    pub server: Server,
    /// Where the state is kept.
    pub database: Database,
    /// The keys given from outside.
    pub keys: Keys,
    /// Model providers and the default model.
    pub models: Models,
    /// What sandboxes run on.
    pub sandbox: Sandbox,
    /// What may be reached.
    pub network: Network,
    /// When memory and dreaming begin their work.
    pub memory: Memory,
    /// Logs and traces.
    pub telemetry: Telemetry,
    /// Settings that are given and do nothing in this version, by their variables.
    pub without_effect: Vec<&'static str>,
}

impl Config {
    /// Puts the sources together and checks every value. `file_text` is a configuration file's path, for
    /// messages, and its content.
    ///
    /// # Errors
    /// The first unknown name or unusable value, with where it stands and what to write in its place.
    pub fn load(
        flags: &Flags,
        env: &BTreeMap<String, String>,
        file_text: Option<(&Path, &str)>,
    ) -> Result<Self, Error> {
        let file = file_text.map(|(path, text)| File::parse(path, text)).transpose()?;
        Self::from_sources(flags, env, file)
    }

    /// The same, of a file that is parsed already.
    pub(crate) fn from_sources(
        flags: &Flags,
        env: &BTreeMap<String, String>,
        file: Option<File>,
    ) -> Result<Self, Error> {
        let sources = Sources::new(flags, env, file)?;
        let server = Server::load(&sources)?;
        Ok(Self {
            database: Database::load(&sources, &server.data_dir)?,
            server,
            keys: Keys::load(&sources)?,
            models: Models::load(&sources)?,
            sandbox: Sandbox::load(&sources)?,
            network: Network::load(&sources)?,
            memory: Memory::load(&sources)?,
            telemetry: Telemetry::load(&sources)?,
            without_effect: WITHOUT_EFFECT
                .iter()
                .filter(|setting| sources.is_given(setting))
                .map(|setting| setting.variable)
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests;
