//! The use cases of Herm. Each use case authorizes its caller and changes the state in one named transaction.
//!
//! Use cases take the [`Caller`] of the request. A resource outside the caller's account or key restriction
//! is reported as not found.

mod app;
mod auth;
pub mod deployments;
mod engines;
mod error;
pub mod events;
pub mod files;
pub mod idempotency;
mod key_watch;
pub mod keys;
pub mod master_key;
pub mod mcp_servers;
pub mod messages;
pub mod runs;
mod sealer;
pub mod secrets;
pub mod skills;
pub mod snapshots;
pub mod steering;
pub mod steps;
pub mod threads;
pub mod tokens;
pub mod tools;

pub use app::{App, Settings};
pub use auth::Caller;
pub use engines::Engines;
pub use error::Error;
pub use sealer::Sealer;
