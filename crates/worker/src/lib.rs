//! The worker, which claims work items from the queue and executes them. It is woken when there may be new work, but it
//! always reads the state of a run from the store.
//!
//! A run is advanced by one worker at a time, under a lease. Every write checks the lease in the same transaction, so a
//! worker that has lost its lease cannot write. A worker may be killed at any time: the worker that claims the run next
//! resumes it from the run's journal.

mod context;
mod demo;
mod dispatch;
pub mod egress;
mod jobs;
mod lease;
mod models;
mod running;
mod sandboxes;
mod sweeps;
mod tools;
mod worker;

pub use demo::PROVIDER as DEMO_PROVIDER;
pub use sweeps::{sweep_events, sweep_idempotency_records, sweep_snapshots, sweep_threads};
pub use worker::{Options, Worker};
