//! API keys and the encryption of stored secrets.
//!
//! This crate performs no I/O and reads neither a clock nor a random number generator. The caller supplies
//! random bytes, with a function that fills a buffer, so that simulations and snapshot tests are
//! reproducible. The server supplies bytes from the operating system.

pub mod api_key;
mod base62;
mod digest;
pub mod master_key;
pub mod seal;

pub use api_key::{ApiKey, KeyError, KeyHash, KeyKind};
pub use digest::sha256;
pub use master_key::{MasterKey, MasterKeyError};
pub use seal::{Cell, KeyRing, SealError, SealKeyId};
