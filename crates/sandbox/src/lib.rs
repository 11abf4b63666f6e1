//! Runs agents' commands in sandboxes, gives the server access to agents' files ([`workspace`]), and stores snapshots
//! of the files of deleted deployments ([`snapshots`]).
//!
//! A sandbox has no network, sees only the host files that it needs, and can write only to its workspace and to
//! temporary directories. There are three engines ([`SandboxType`](herm_types::sandbox::SandboxType)), described in
//! `docs/concepts/sandboxes.md`. On every engine, PID 1 of the sandbox is the guest, a program that runs commands for
//! the server and communicates with it over a Unix socket.
//!
//! A sandbox survives a crash of the server. Its guest reconnects to the same socket, so a restarted server finds the
//! sandbox and the results that the guest retains ([`Sandboxes::find`], [`Sandbox::attach`]). If no server accepts the
//! guest within 30 seconds, the guest exits and the sandbox ends.

mod connection;
mod docker;
mod engine;
mod guest_listener;
mod local;
mod sandbox;
mod sandbox_dir;
mod sandboxes;
mod shared_files;
#[cfg(feature = "simulated")]
mod simulated;
pub mod snapshots;
mod spec;
mod user;
pub mod workspace;
mod workspaces;

pub use docker::DockerOptions;
pub use guest_listener::ProxyHandler;
pub use herm_guest::protocol::{Exit, PROXY_PORT};
pub use sandbox::Sandbox;
pub use sandboxes::{Certificates, Options, RECONNECT_TIMEOUT, Sandboxes};
#[cfg(feature = "simulated")]
pub use simulated::Machine;
pub use spec::{Error, Exec, Limits, Outcome, Spec};
pub use workspaces::{WorkspaceId, Workspaces};
