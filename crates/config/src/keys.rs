//! The keys an operator brings.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;

use crate::Error;
use crate::setting;
use crate::source::Sources;

const MASTER_KEY_BYTES: usize = 32;

/// The keys an operator brings.
#[derive(Clone, Debug)]
pub struct Keys {
    /// An admin key of the account `default` to accept from the first start on. As written: whoever uses
    /// it checks its format.
    pub bootstrap: Option<SecretString>,
    /// 32 bytes in base64 that encrypt secrets at rest; `None`: a key file in the data directory is used.
    pub master: Option<SecretString>,
}

impl Keys {
    pub(crate) fn load(sources: &Sources<'_>) -> Result<Self, Error> {
        let bootstrap = sources.text(&setting::BOOTSTRAP_KEY)?;
        let master = sources.text(&setting::MASTER_KEY)?;
        if let Some(found) = &master {
            // A decoded key is discarded at once; who uses it decodes it into memory that is wiped.
            let length = STANDARD.decode(&found.value).map(|bytes| bytes.len()).ok();
            if length != Some(MASTER_KEY_BYTES) {
                return Err(found.invalid(
                    "it must be 32 bytes in base64; make one with `openssl rand -base64 32`, or leave it out \
                     for a key file in the data directory",
                ));
            }
        }
        Ok(Self {
            bootstrap: bootstrap.map(|found| found.into_secret()),
            master: master.map(|found| found.into_secret()),
        })
    }
}
