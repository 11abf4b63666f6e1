//! The HTTP API of Herm: it parses requests into types, asks the use cases, and writes their answers.

mod auth;
mod deployments;
mod error;
mod events;
mod files;
mod health;
mod input;
mod linger;
mod mcp_servers;
mod messages;
mod openapi;
mod range;
mod request_id;
mod router;
mod runs;
mod skills;
mod sse;
mod threads;
mod tools;

pub use openapi::document as openapi;
pub use router::{Options, router};
