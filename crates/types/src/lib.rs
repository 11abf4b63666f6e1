//! The words of Herm: ids, resources, events, errors, paging, time.
//!
//! Everything here is plain data and pure functions. The wire shapes are exactly those of the HTTP API, so
//! that the server, its store and its tests share one definition of each.

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

pub use error::{Error, ErrorCode, Fault};
pub use id::{
    AccountId, ApprovalId, DeploymentId, EventId, IdSource, KeyId, MessageId, RunId, SkillId, SnapshotId,
    SteeringId, ThreadId, WorkId,
};
pub use secret::SecretId;
pub use time::{Clock, Rng, Timestamp};
