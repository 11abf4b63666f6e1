//! The protocol between the server and the guest, the small program that is PID 1 in a sandbox.
//!
//! The server listens on a Unix socket, the guest dials, and dials again whenever the connection breaks. A frame
//! is its length in bytes (`u32`, big-endian) and that many bytes of JSON.

pub mod output;
pub mod protocol;
