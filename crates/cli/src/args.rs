//! The command line.

use std::path::PathBuf;

use clap::{Args as Arguments, Parser, Subcommand};
use herm_config::Flags;
use herm_types::key::Scope;
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
    /// Show the main job: a server, a deployment, a message, and every event of the work.
    Demo(Demo),
    /// Make, list and revoke API keys; works beside a running server.
    Keys(Keys),
    /// Say what this machine offers to a server, and what is missing.
    Doctor(Doctor),
    /// Bring the database's schema up to date.
    Migrate(Place),
    /// Print the version.
    Version(Version),
}

/// Where the server's state is.
#[derive(Arguments, Clone, Default)]
pub(crate) struct Place {
    /// Directory of everything the server keeps [default: ./herm-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// `postgres://…`; SQLite in the data directory unless it is given
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Configuration file [default: herm.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Place {
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
    /// Address to take requests at [default: 127.0.0.1:4376]; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Option<String>,
    /// Bring a PostgreSQL database's schema up to date first; SQLite's always is
    #[arg(long)]
    pub(crate) migrate: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Arguments)]
pub(crate) struct Demo {
    /// What to say to the agent
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
    /// Make a key; it is shown this once
    Create(CreateKey),
    /// List the keys of all accounts
    List(ListKeys),
    /// Revoke a key at once
    Revoke(RevokeKey),
    /// Print a well-formed key, for HERM_BOOTSTRAP_KEY
    Generate(GenerateKey),
}

#[derive(Arguments)]
pub(crate) struct CreateKey {
    /// What the key is for
    #[arg(long)]
    pub(crate) name: String,
    /// The account it belongs to; made if it is new
    #[arg(long, default_value = "default")]
    pub(crate) account: String,
    /// Scopes, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = scope, default_value = "deployments:read,deployments:write")]
    pub(crate) scopes: Vec<Scope>,
    /// Limit it to one deployment
    #[arg(long, value_name = "ID")]
    pub(crate) deployment: Option<DeploymentId>,
    /// Limit it to one customer
    #[arg(long, value_name = "ID")]
    pub(crate) customer: Option<String>,
    /// How long it works: 30d, 12h, 45m [default: until it is revoked]
    #[arg(long, value_name = "TIME", value_parser = lifetime_ms)]
    pub(crate) expires: Option<i64>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Arguments)]
pub(crate) struct ListKeys {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Arguments)]
pub(crate) struct RevokeKey {
    /// The key's id, `key_…`
    pub(crate) key_id: KeyId,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: Place,
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
    pub(crate) place: Place,
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
        reason = "a command prints, and is called like the others"
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
    let parsed = Scope::parse(text.trim()).filter(|scope| Scope::OF_KEYS.contains(scope));
    parsed.ok_or_else(|| {
        let known: Vec<&str> = Scope::OF_KEYS.iter().map(|scope| scope.as_str()).collect();
        format!("the scopes are {}", known.join(", "))
    })
}

fn lifetime_ms(text: &str) -> Result<i64, String> {
    let wrong = || "write a number and its unit: 30d, 12h or 45m".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let number: i64 = text.strip_suffix(unit).and_then(|digits| digits.parse().ok()).ok_or_else(wrong)?;
    let minutes = match unit {
        'd' => number.checked_mul(24 * 60),
        'h' => number.checked_mul(60),
        'm' => Some(number),
        _ => None,
    };
    minutes.and_then(|minutes| minutes.checked_mul(60_000)).filter(|ms| *ms > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn lifetimes_have_a_unit() {
        assert_eq!(lifetime_ms("30d"), Ok(30 * 24 * 3_600_000));
        assert_eq!(lifetime_ms("45m"), Ok(45 * 60_000));
        for wrong in ["", "30", "d", "-1d", "0h", "9223372036854775807d", "3µ"] {
            assert!(lifetime_ms(wrong).is_err(), "{wrong}");
        }
    }
}
