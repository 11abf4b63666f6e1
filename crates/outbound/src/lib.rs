//! HTTP requests to addresses that clients of the API name.
//!
//! Who can name an address could name one of the server's own network. So an address counts only once it is resolved:
//! it is checked where the connection is made, on every redirect too, and what is not public is refused unless the
//! operator allows it.

mod address;
mod fetch;

pub use address::Allowed;
pub use fetch::{Error, Fetcher, MAX_REDIRECTS, TIME_LIMIT};
