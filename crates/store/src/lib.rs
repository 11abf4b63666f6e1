//! The database of Herm: one SQL text for SQLite and PostgreSQL.
//!
//! State changes only in **named transactions** ([`Store::transaction`]). Each writes its rows, enqueues its
//! work and emits its events together, so that the API, the streams and the workers can never disagree. The
//! events of a transaction are numbered last, committed with it, and published only after the commit.

pub mod accounts;
pub mod approvals;
pub mod connections;
pub mod deployments;
pub mod error;
pub mod events;
pub mod fault;
pub mod feed;
pub mod idempotent_requests;
mod inspect;
pub mod journal;
pub mod keys;
mod listener;
pub mod master_key;
pub mod messages;
mod migrate;
pub mod placeholders;
mod postgres;
pub mod queue;
mod row;
pub mod runs;
pub mod secrets;
pub mod skills;
pub mod snapshots;
mod sqlite;
pub mod steering;
mod store;
pub mod threads;
mod tx;

pub use error::Error;
pub use feed::Feed;
pub use inspect::{is_sealed, schema_version};
pub use listener::Listener;
pub use migrate::SCHEMA_VERSION;
pub use store::{DatabaseClock, Location, Options, Store};
pub use tx::Tx;
