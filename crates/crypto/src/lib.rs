//! API keys and the encryption of stored secrets.
//!
//! Pure: no file, clock or random source is read here. Randomness arrives as a function that fills a
//! buffer, so that simulations and snapshots can replay it; the server passes the system's source.

pub mod api_key;
mod base62;
mod digest;
pub mod master_key;
pub mod seal;

pub use api_key::{ApiKey, KeyError, KeyHash, KeyKind};
pub use digest::sha256;
pub use master_key::{MasterKey, MasterKeyError};
pub use seal::{Cell, KeyRing, SealError, SealKeyId};
