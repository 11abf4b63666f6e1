//! What the tests of several crates share: stand-ins for the world outside, driven by the test.

pub mod model_server;
