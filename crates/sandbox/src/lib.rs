//! Where an agent's commands run, the one way in which the host reaches an agent's files ([`workspace`]), and where what
//! is kept of deleted ones lies ([`snapshots`]).
//!
//! A sandbox has no network, sees of the host only what it is given, and can write its workspace and `/tmp`. Three
//! engines start them ([`SandboxType`](herm_types::sandbox::SandboxType)): see `docs/concepts/sandboxes.md`. Inside
//! they are the same: PID 1 is the guest, and the server speaks with it over a socket.
//!
//! A sandbox outlives a server that was killed. Its guest dials the same socket again, so that the next server finds
//! it, and the results it keeps ([`Sandboxes::find`], [`Sandbox::attach`]); if none comes within 30 seconds it ends
//! itself.

mod connection;
mod docker;
mod door;
mod engine;
mod local;
mod place;
mod sandbox;
mod sandboxes;
mod shared;
#[cfg(feature = "simulated")]
mod simulated;
pub mod snapshots;
mod spec;
mod user;
pub mod workspace;
mod workspaces;

pub use docker::DockerOptions;
pub use door::Carry;
pub use herm_guest::protocol::{Exit, PROXY_PORT};
pub use sandbox::Sandbox;
pub use sandboxes::{AWAY_LIMIT, Certificates, Options, Sandboxes};
#[cfg(feature = "simulated")]
pub use simulated::Machine;
pub use spec::{Error, Exec, Limits, Outcome, Spec};
pub use workspaces::{WorkspaceId, Workspaces};
