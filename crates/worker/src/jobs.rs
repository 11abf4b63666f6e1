//! The jobs of the worker, one module for each kind of work item.

pub(crate) mod erase_thread;
pub(crate) mod provision;
pub(crate) mod run;
mod snapshot;
pub(crate) mod teardown;
