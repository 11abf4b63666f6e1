//! What an operator sets: flags before `HERM_*` variables before `herm.toml` before defaults.
//!
//! [`Config::load`] is pure: it is given the flags, the environment and the file's text. Every value is
//! parsed here, once, into the type the rest of the server uses; a name that is not known is an error, so
//! that a mistyped setting is never silently a default. [`load_from_machine`] does the reading.

mod address;
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
pub use error::{Error, Origin};
pub use keys::Keys;
pub use machine::{DEFAULT_FILE, load_from_machine};
pub use memory::Memory;
pub use models::{DEMO_MODEL, DEMO_PROVIDER, Models, Provider, ProviderKind};
pub use network::{EgressDefault, Network};
pub use sandbox::{Sandbox, SandboxFallback};
pub use server::Server;
pub use setting::known_variables;
pub use telemetry::{LogFormat, Telemetry};
