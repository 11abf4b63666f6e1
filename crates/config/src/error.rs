//! What can be wrong with a configuration. Each message says where, what, and what to write instead; none
//! repeats a secret.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A command-line flag, with its dashes.
    Flag(&'static str),
    /// An environment variable.
    Variable(String),
    /// A key of the configuration file, dotted where it is nested.
    File {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::File { path, key } => write!(f, "`{key}` in {}", path.display()),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that does not exist.
    #[error(
        "unknown setting: {origin}; did you mean {nearest}? (remove it, or see docs/reference/configuration.md)"
    )]
    Unknown {
        /// Where it stands.
        origin: Origin,
        /// The known name most like it.
        nearest: String,
    },
    /// A value that cannot be used.
    #[error("cannot use {origin}: {reason}")]
    Invalid {
        /// Where it stands.
        origin: Origin,
        /// What is wrong, and what to write.
        reason: String,
    },
    /// The file is not TOML.
    #[error("{} is not valid TOML{}: {reason}", path.display(), at_line(*line))]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1, where the parser knows it.
        line: Option<usize>,
        /// The parser's words, without the text of the line, which may be a secret.
        reason: String,
    },
    /// The file could not be read.
    #[error("failed to read the configuration file {}; check the path given with --config and the file's permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The file is longer than any configuration.
    #[error("{} is larger than {limit_bytes} bytes, so it is not a configuration file; check --config", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit_bytes: u64,
    },
    /// A variable of ours whose value is not text.
    #[error("environment variable {name} is not valid UTF-8; set it again as plain text")]
    NotText {
        /// The variable.
        name: String,
    },
}

fn at_line(line: Option<usize>) -> String {
    line.map(|line| format!(" at line {line}")).unwrap_or_default()
}
