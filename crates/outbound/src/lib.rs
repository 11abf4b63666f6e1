//! HTTP requests to addresses that clients of the API name.
//!
//! Who can name an address could name one of the server's own network. So an address counts only once it is resolved:
//! it is checked where the connection is made, on every redirect too, and what is not public is refused unless the
//! operator allows it.
//!
//! Whom this machine trusts is read here too, once for every client of the process: [`tls`].

mod address;
mod fetch;
mod trust;

pub use address::Allowed;
pub use fetch::{Error, Fetcher, MAX_REDIRECTS, TIME_LIMIT};
pub use trust::{roots, tls};
