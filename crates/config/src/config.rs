//! The complete configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::file::File;
use crate::setting::WITHOUT_EFFECT;
use crate::source::Sources;
use crate::{Database, Error, Keys, Memory, Models, Network, Sandbox, Server, Telemetry};

/// The settings that have a command-line flag. A field is `None` if its flag is not set.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--listen`: the address of the API.
    pub listen: Option<String>,
    /// `--data-dir`: the directory for all data of the server.
    pub data_dir: Option<PathBuf>,
    /// `--database-url`: the URL of a PostgreSQL database. Secret, because it can contain a password.
    pub database_url: Option<SecretString>,
    /// `--config`: the configuration file to read instead of `herm.toml`.
    pub config: Option<PathBuf>,
}

/// All settings, parsed and validated. The `Debug` output contains no secrets.
#[derive(Clone, Debug)]
pub struct Config {
    /// The addresses, directories and limits of the server.
    pub server: Server,
    /// The database: SQLite or PostgreSQL.
    pub database: Database,
    /// The bootstrap key and the master key, if the operator provides them.
    pub keys: Keys,
    /// The model providers and the default model.
    pub models: Models,
    /// The settings of sandboxes.
    pub sandbox: Sandbox,
    /// The private addresses that the server and sandboxes may reach, and the default egress mode.
    pub network: Network,
    /// The thresholds at which the memory jobs and context compaction start.
    pub memory: Memory,
    /// The settings of logs and traces.
    pub telemetry: Telemetry,
    /// The settings that are set but have no effect in this version, given as names of environment variables.
    pub without_effect: Vec<&'static str>,
}

impl Config {
    /// Combines flags, environment and configuration file, and validates every value. `file_text` is a pair:
    /// the path of the configuration file, for error messages, and its content.
    ///
    /// # Errors
    /// Returns the first unknown name or invalid value, with its location and the expected value.
    pub fn load(
        flags: &Flags,
        env: &BTreeMap<String, String>,
        file_text: Option<(&Path, &str)>,
    ) -> Result<Self, Error> {
        let file = file_text.map(|(path, text)| File::parse(path, text)).transpose()?;
        Self::from_sources(flags, env, file)
    }

    /// Like [`Self::load`], but takes a configuration file that is already parsed.
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
                .filter(|setting| sources.is_set(setting))
                .map(|setting| setting.variable)
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests;
