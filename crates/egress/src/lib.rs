//! The proxy through which all network traffic of sandboxes passes.
//!
//! The policy is checked for each connection and each request. The proxy itself resolves the name of the destination
//! host, checks the resulting IP addresses and connects to one of them. Secrets are injected here, outside the sandbox,
//! and only into requests to hosts that may receive them.

mod authority;
mod body;
mod decode;
mod dial;
mod egress;
mod environment;
mod error;
mod forward;
mod hop_by_hop;
mod http_server;
mod intercept;
mod mask;
mod monitored_stream;
mod owner;
mod policy;
mod proxy;
mod record;
mod rewrite;
mod sender;
mod session;
mod target;
mod upstream;
mod values;
mod websocket;

pub use authority::{Authority, AuthorityError};
pub use dial::{Resolver, SystemResolver};
pub use egress::{Egress, IDLE_TIMEOUT, MAX_CONNECTIONS, Options};
pub use environment::{BUNDLE_PATH, CA_PATH, PROXY_ADDRESS, environment};
pub use owner::{Attempt, Owner, RecordId, Traffic, Unavailable, Verdict};
pub use policy::{Policy, PolicySecret};
