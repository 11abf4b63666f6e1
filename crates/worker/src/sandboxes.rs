//! The sandboxes of the worker: starts and stops them, and enforces the disk quota while a command runs in one.

mod disk_quota;
pub(crate) mod pool;
