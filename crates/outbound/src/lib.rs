//! HTTP requests to URLs that API clients supply.
//!
//! Such a URL could refer to a host in the private network of the server. The resolved address is therefore
//! checked before every connection, including connections after a redirect. An address that is not public is
//! refused unless the operator allows it.
//!
//! This crate also loads the root certificates of this machine, once for all HTTP clients of the process:
//! [`tls_client_config`].

mod address;
mod fetch;
mod trust;

pub use address::AllowedAddresses;
pub use fetch::{Error, Fetcher, MAX_REDIRECTS, TIMEOUT};
pub use trust::{root_certificates, tls_client_config};
