//! The sandboxes of the worker: when they start and stop, and the disk quota of the commands in them.

mod disk_quota;
pub(crate) mod pool;
