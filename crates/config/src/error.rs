//! Configuration errors. Each message contains the location of the error, the reason and the remedy.
//! No message contains a secret.

use std::fmt;
use std::path::PathBuf;

/// The location from which a setting was read, for error messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// The name of a command-line flag, including its dashes.
    Flag(&'static str),
    /// The name of an environment variable.
    Variable(String),
    /// A key in the configuration file. The parts of a nested key are separated by dots.
    File {
        /// The path of the configuration file.
        path: PathBuf,
        /// The key, for example `providers.own.kind`.
        key: String,
    },
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::File { path, key } => write!(f, "`{key}` in {}", path.display()),
        }
    }
}

/// An error in the configuration. It prevents the server from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting has an unknown name.
    #[error(
        "unknown setting: {location}; did you mean {nearest}? Correct or remove it; see docs/reference/configuration.md"
    )]
    Unknown {
        /// The flag, environment variable or file key that has the unknown name.
        location: Location,
        /// The known name that is most similar to the unknown one.
        nearest: String,
    },
    /// A setting has an invalid value.
    #[error("invalid {location}: {reason}")]
    Invalid {
        /// The flag, environment variable or file key that contains the value.
        location: Location,
        /// The reason why the value is invalid, and the expected value.
        reason: String,
    },
    /// The configuration file is not valid TOML.
    #[error("{} is not valid TOML{}: {reason}", path.display(), at_line(*line))]
    Syntax {
        /// The path of the configuration file.
        path: PathBuf,
        /// The number of the invalid line, starting at 1. `None` if the parser does not report it.
        line: Option<usize>,
        /// The error message of the parser. It does not contain the text of the line, which can contain a
        /// secret.
        reason: String,
    },
    /// The configuration file could not be read.
    #[error("failed to read the configuration file {}; check the path in --config and the permissions of the file", path.display())]
    Unreadable {
        /// The path of the configuration file.
        path: PathBuf,
        /// The I/O error.
        #[source]
        cause: std::io::Error,
    },
    /// The configuration file is too large. It is probably some other file, selected by mistake.
    #[error("{} exceeds {limit_bytes} bytes, so it is probably not a configuration file; check the path in --config", path.display())]
    TooLarge {
        /// The path of the configuration file.
        path: PathBuf,
        /// The maximum size of a configuration file in bytes.
        limit_bytes: u64,
    },
    /// The value of an environment variable that the server reads is not valid UTF-8.
    #[error("environment variable {name} is not valid UTF-8; set it to plain text")]
    NotText {
        /// The name of the environment variable.
        name: String,
    },
}

fn at_line(line: Option<usize>) -> String {
    line.map(|line| format!(" at line {line}")).unwrap_or_default()
}
