//! The proxy that is a sandbox's only way out.
//!
//! What may be reached is decided for each connection and each request anew, where the connection is made, after the
//! host's name is resolved. Secrets are put in here, outside of the sandbox, for the hosts that they allow.

mod authority;
mod body;
mod decode;
mod dial;
mod egress;
mod environment;
mod fault;
mod fields;
mod forward;
mod hop;
mod mask;
mod open;
mod owner;
mod policy;
mod proxy;
mod record;
mod rewrite;
mod sender;
mod serving;
mod session;
mod target;
mod values;
mod watched;
mod websocket;

pub use authority::{Authority, AuthorityError};
pub use dial::{Resolver, SystemResolver};
pub use egress::{Egress, IDLE_LIMIT, MAX_CONNECTIONS, Options};
pub use environment::{BUNDLE_PATH, CA_PATH, PROXY_ADDRESS, environment};
pub use owner::{Attempt, Owner, RecordId, Traffic, Unavailable, Verdict};
pub use policy::{Policy, PolicySecret};
