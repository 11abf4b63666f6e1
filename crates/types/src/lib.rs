//! Shared types of Herm: ids, resources, events, errors, paging, time.
//!
//! This crate contains plain data and pure functions. Apart from the system clock and the system's random
//! number generator, it does no I/O. The types of resources that the HTTP API returns serialize to exactly
//! the JSON of the API, so that the server, the store and the tests share one definition of each resource.

pub mod connection;
pub mod deployment;
pub mod error;
pub mod event;
pub mod file;
pub mod id;
pub mod key;
pub mod mcp;
pub mod model;
pub mod network;
pub mod paging;
pub mod run;
pub mod sandbox;
pub mod secret;
pub mod skill;
pub mod snapshot;
pub mod steering;
pub mod thread;
pub mod time;
pub mod tool;

pub use error::{Error, ErrorCode, FieldError};
pub use id::{
    AccountId, ApprovalId, DeploymentId, EventId, IdSource, KeyId, MessageId, RunId, SkillId, SnapshotId,
    SteeringId, ThreadId, WorkId,
};
pub use secret::SecretId;
pub use time::{Clock, Rng, Timestamp};
