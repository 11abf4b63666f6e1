//! The keys that an operator can provide: an admin API key and the master key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;

use crate::Error;
use crate::setting;
use crate::source::Sources;

const MASTER_KEY_BYTES: usize = 32;

/// The keys that an operator can provide: an admin API key and the master key.
#[derive(Clone, Debug)]
pub struct Keys {
    /// An API key that the server inserts at startup as an admin key of the account `default`. Its format is
    /// not validated here.
    pub bootstrap: Option<SecretString>,
    /// The master key, which encrypts stored secrets: 32 bytes in base64. With `None`, a key file in the data
    /// directory is used.
    pub master: Option<SecretString>,
}

impl Keys {
    pub(crate) fn load(sources: &Sources<'_>) -> Result<Self, Error> {
        let bootstrap = sources.text(&setting::BOOTSTRAP_KEY)?;
        let master = sources.text(&setting::MASTER_KEY)?;
        if let Some(raw) = &master {
            // Decode the key only to check its length. The code that uses the key decodes it again, into
            // memory that is wiped after use.
            let length = STANDARD.decode(&raw.value).map(|bytes| bytes.len()).ok();
            if length != Some(MASTER_KEY_BYTES) {
                return Err(raw.invalid(
                    "expected 32 bytes in base64; create a key with `openssl rand -base64 32`, or remove this \
                     setting to use a key file in the data directory",
                ));
            }
        }
        Ok(Self {
            bootstrap: bootstrap.map(|raw| raw.into_secret()),
            master: master.map(|raw| raw.into_secret()),
        })
    }
}
