//! The protocol between the server and the guest, a small program that runs as PID 1 in each sandbox.
//!
//! The server listens on a Unix socket. The guest connects to it, and reconnects whenever the connection breaks. Both
//! sides send frames. A frame is the length of a JSON text in bytes (`u32`, big-endian), followed by the JSON text.

pub mod output;
pub mod protocol;
