//! What the tests of several crates share: the server's binary as a process, a client that reads its streams, and
//! stand-ins for the world outside, driven by the test.

pub mod client;
pub mod events;
pub mod model_server;
pub mod process;
