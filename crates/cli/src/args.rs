//! The command-line arguments.

use std::path::PathBuf;

use clap::{Args as Arguments, Parser, Subcommand};
use herm_config::Flags;
use herm_types::key::{MAX_CUSTOMER_CHARS, Scope};
use herm_types::{DeploymentId, KeyId};
use secrecy::SecretString;

/// A dedicated agent for each of your customers.
#[derive(Parser)]
#[command(name = "herm", version, about)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run the server.
    Serve(Serve),
    /// Run a complete example: start a server, create a deployment, send a message, and print every event.
    Demo(Demo),
    /// Create, list and revoke API keys; works while a server is running.
    Keys(Keys),
    /// Check what this machine provides for a server, and report what is missing.
    Doctor(Doctor),
    /// Migrate the database to the current schema version.
    Migrate(StateLocation),
    /// Print the version.
    Version(Version),
}

/// The options that select the database and the data directory.
#[derive(Arguments, Clone, Default)]
pub(crate) struct StateLocation {
    /// Directory for all of the server's data [default: ./herm-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// PostgreSQL URL, `postgres://…`; SQLite in the data directory if omitted
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Configuration file [default: herm.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl StateLocation {
    pub(crate) fn flags(&self, listen: Option<String>) -> Flags {
        Flags {
            listen,
            data_dir: self.data_dir.clone(),
            database_url: self.database_url.clone().map(SecretString::from),
            config: self.config.clone(),
        }
    }
}

#[derive(Arguments)]
pub(crate) struct Serve {
    /// Address to listen on [default: 127.0.0.1:4376]; port 0 selects a free port
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Option<String>,
    /// Migrate a PostgreSQL database first; SQLite is always migrated
    #[arg(long)]
    pub(crate) migrate: bool,
    #[command(flatten)]
    pub(crate) location: StateLocation,
}

#[derive(Arguments)]
pub(crate) struct Demo {
    /// The message to send to the agent
    #[arg(long, default_value = "Show me what you can do in your workspace.")]
    pub(crate) message: String,
    /// Configuration file [default: herm.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Arguments)]
pub(crate) struct Keys {
    #[command(subcommand)]
    pub(crate) command: KeysCommand,
}

#[derive(Subcommand)]
pub(crate) enum KeysCommand {
    /// Create a key; it is shown only once
    Create(CreateKey),
    /// List the keys of all accounts
    List(ListKeys),
    /// Revoke a key; it stops working at once
    Revoke(RevokeKey),
    /// Print a random key, for HERM_BOOTSTRAP_KEY
    Generate(GenerateKey),
}

#[derive(Arguments)]
pub(crate) struct CreateKey {
    /// A name that describes the key's purpose
    #[arg(long)]
    pub(crate) name: String,
    /// The account of the key; created if it does not exist
    #[arg(long, default_value = "default")]
    pub(crate) account: String,
    /// Scopes, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = scope, default_value = "deployments:read,deployments:write")]
    pub(crate) scopes: Vec<Scope>,
    /// Restrict the key to one deployment
    #[arg(long, value_name = "ID")]
    pub(crate) deployment: Option<DeploymentId>,
    /// Restrict the key to one customer
    #[arg(long, value_name = "ID", value_parser = customer_id)]
    pub(crate) customer: Option<String>,
    /// Lifetime of the key, for example 30d, 12h or 45m [default: until it is revoked]
    #[arg(long, value_name = "TIME", value_parser = lifetime_ms)]
    pub(crate) expires: Option<i64>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) location: StateLocation,
}

#[derive(Arguments)]
pub(crate) struct ListKeys {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) location: StateLocation,
}

#[derive(Arguments)]
pub(crate) struct RevokeKey {
    /// The key's id, `key_…`
    pub(crate) key_id: KeyId,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) location: StateLocation,
}

#[derive(Arguments)]
pub(crate) struct GenerateKey {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Arguments)]
pub(crate) struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) location: StateLocation,
}

#[derive(Arguments)]
pub(crate) struct Version {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Version {
    #[expect(
        clippy::print_stdout,
        clippy::unnecessary_wraps,
        reason = "a command prints its result, and all commands have the same signature"
    )]
    pub(crate) fn print(&self) -> anyhow::Result<()> {
        let version = env!("CARGO_PKG_VERSION");
        if self.json {
            println!("{}", serde_json::json!({"version": version}));
        } else {
            println!("herm {version}");
        }
        Ok(())
    }
}

fn scope(text: &str) -> Result<Scope, String> {
    let parsed = Scope::parse(text.trim()).filter(|scope| Scope::FOR_API_KEYS.contains(scope));
    parsed.ok_or_else(|| {
        let valid: Vec<&str> = Scope::FOR_API_KEYS.iter().map(|scope| scope.as_str()).collect();
        format!("must be one of {}", valid.join(", "))
    })
}

fn customer_id(text: &str) -> Result<String, String> {
    let count = text.chars().count();
    if !(1..=MAX_CUSTOMER_CHARS).contains(&count) {
        return Err(format!("must be 1 to {MAX_CUSTOMER_CHARS} characters long, but has {count}"));
    }
    Ok(text.to_owned())
}

fn lifetime_ms(text: &str) -> Result<i64, String> {
    let invalid = || "must be a number with a unit, for example 30d, 12h or 45m".to_owned();
    let unit = text.chars().last().ok_or_else(invalid)?;
    let number: i64 = text.strip_suffix(unit).and_then(|digits| digits.parse().ok()).ok_or_else(invalid)?;
    let minutes = match unit {
        'd' => number.checked_mul(24 * 60),
        'h' => number.checked_mul(60),
        'm' => Some(number),
        _ => None,
    };
    minutes.and_then(|minutes| minutes.checked_mul(60_000)).filter(|ms| *ms > 0).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_definition_is_valid() {
        Args::command().debug_assert();
    }

    #[test]
    fn an_empty_customer_id_is_rejected() {
        assert_eq!(customer_id("acme"), Ok("acme".to_owned()));
        assert!(customer_id("").is_err());
        assert!(customer_id(&"é".repeat(MAX_CUSTOMER_CHARS)).is_ok());
        assert!(customer_id(&"é".repeat(MAX_CUSTOMER_CHARS + 1)).is_err());
    }

    #[test]
    fn a_lifetime_requires_a_unit() {
        assert_eq!(lifetime_ms("30d"), Ok(30 * 24 * 3_600_000));
        assert_eq!(lifetime_ms("45m"), Ok(45 * 60_000));
        for wrong in ["", "30", "d", "-1d", "0h", "9223372036854775807d", "3µ"] {
            assert!(lifetime_ms(wrong).is_err(), "{wrong}");
        }
    }
}
