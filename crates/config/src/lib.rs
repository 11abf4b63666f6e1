//! The settings of a server. Flags take precedence over `HERM_*` environment variables, variables over the
//! file `herm.toml`, and the file over defaults.
//!
//! [`Config::load`] is pure: flags, environment and the text of the configuration file are its parameters. It
//! parses every value once, into the type that the rest of the server uses. An unknown name is an error, so
//! that a mistyped setting is never silently ignored. [`load_from_machine`] reads the environment and the
//! file, and then loads the configuration.

mod base_url;
mod config;
mod cors;
mod database;
mod error;
mod file;
mod keys;
mod machine;
mod memory;
mod models;
mod network;
mod sandbox;
mod server;
mod setting;
mod source;
mod telemetry;

pub use config::{Config, Flags};
pub use cors::CorsOrigins;
pub use database::Database;
pub use error::{Error, Location};
pub use keys::Keys;
pub use machine::{DEFAULT_FILE, load_from_machine};
pub use memory::Memory;
pub use models::{DEMO_MODEL, DEMO_PROVIDER, Models, Provider, ProviderKind};
pub use network::Network;
pub use sandbox::{Sandbox, SandboxFallback};
pub use server::Server;
pub use setting::known_variables;
pub use telemetry::{LogFormat, Telemetry};
