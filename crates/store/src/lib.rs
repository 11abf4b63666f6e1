//! The database of Herm. The same SQL statements run on SQLite and PostgreSQL.
//!
//! All changes are made in **named transactions** ([`Store::transaction`]). A transaction writes its rows, its work
//! items and its events together, so that the API, the streams and the workers never see different states. The events
//! of a transaction are numbered at its end, committed with it, and published after the commit.

pub mod accounts;
pub mod approvals;
pub mod connections;
pub mod deployments;
pub mod error;
pub mod events;
pub mod failpoint;
pub mod feed;
pub mod idempotent_requests;
mod inspect;
pub mod journal;
pub mod keys;
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
mod subscriber;
pub mod threads;
mod tx;

pub use error::Error;
pub use feed::Feed;
pub use inspect::{is_sealed, schema_version};
pub use migrate::SCHEMA_VERSION;
pub use store::{DatabaseClock, Location, Options, Store};
pub use subscriber::Subscriber;
pub use tx::Tx;
