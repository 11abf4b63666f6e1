//! Tools shared by the tests of several crates: the server binary as a child process, an HTTP client that reads event
//! streams, a scripted model provider, and control of Tokio's paused clock.

pub mod client;
pub mod events;
pub mod model_server;
pub mod process;
pub mod time;
