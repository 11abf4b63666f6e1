//! What drives runs. A worker is told that there is work, never what: it claims items from the queue, and all it
//! knows of a run it reads from the store.
//!
//! One worker advances a run, by a lease; every write holds that lease in the same transaction, so that a worker
//! which lost it cannot write. Killed at any instant, it leaves a journal that the next one goes on from.

mod demo;
mod disk;
mod dispatch;
pub mod egress;
mod in_hand;
mod keeper;
mod models;
mod provision;
mod retention;
mod run;
mod snapshot;
mod teardown;
mod tools;
mod worker;

pub use demo::PROVIDER as DEMO_PROVIDER;
pub use retention::{sweep, sweep_events, sweep_snapshots, sweep_threads};
pub use worker::{Options, Worker};
