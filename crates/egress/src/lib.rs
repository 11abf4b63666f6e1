//! The proxy that is a sandbox's only way out.
//!
//! What may be reached is decided for each connection and each request anew, where the connection is made, after the
//! host's name is resolved. Secrets are put in here, outside of the sandbox, for the hosts that they allow.

mod authority;
mod body;
mod decode;
mod environment;
mod fault;
mod mask;
mod owner;
mod policy;
mod rewrite;
mod target;
mod values;

pub use authority::{Authority, AuthorityError};
pub use environment::{BUNDLE_PATH, CA_PATH, PROXY_ADDRESS, environment};
pub use owner::{Attempt, Owner, RecordId, Traffic, Unavailable, Verdict};
pub use policy::{Policy, PolicySecret};
