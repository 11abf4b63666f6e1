//! The HTTP API of Herm. Handlers parse requests into types, call the use cases of `herm-app`, and write the responses.

mod auth;
mod cors;
mod deployments;
mod drain_body;
mod error;
mod events;
mod files;
mod health;
mod idempotency;
mod input;
mod keys;
mod mcp_servers;
mod messages;
mod models;
mod openapi;
mod range;
mod rate_limit;
mod request_id;
mod router;
mod runs;
mod secrets;
mod serve;
mod skills;
mod snapshots;
mod sse;
mod state;
mod steering;
mod target;
mod threads;
mod tokens;
mod tools;

pub use cors::CorsOrigins;
pub use router::{openapi_document as openapi, router};
pub use serve::serve;
pub use state::{ModelProvider, Options};
