//! What is stored so that only this server can read it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use herm_crypto::{ApiKey, Cell, KeyKind, KeyRing, SealError};
use herm_types::Rng;
use zeroize::Zeroizing;

/// Encrypts what goes into one cell of the database, and reads it back; cheap to clone.
#[derive(Clone)]
pub struct Sealer {
    keys: Arc<KeyRing>,
    rng: Arc<dyn Rng>,
}

impl Sealer {
    pub fn new(keys: KeyRing, rng: Arc<dyn Rng>) -> Self {
        Self { keys: Arc::new(keys), rng }
    }

    /// The text to store in `cell`.
    ///
    /// # Errors
    /// The plaintext is longer than what is sealed.
    pub(crate) fn seal(&self, cell: Cell<'_>, plaintext: &[u8]) -> Result<String, SealError> {
        let sealed = self.keys.seal(cell, plaintext, &mut |bytes: &mut [u8]| self.rng.fill(bytes))?;
        Ok(STANDARD.encode(sealed))
    }

    /// What was sealed for `cell`.
    ///
    /// # Errors
    /// The text was changed, belongs to another cell, or its key is not here.
    pub(crate) fn open(&self, cell: Cell<'_>, sealed: &str) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let sealed = STANDARD.decode(sealed).map_err(|_| SealError::Malformed)?;
        self.keys.open(cell, &sealed)
    }

    /// A text that is made once: 128 random bits in hexadecimal.
    pub(crate) fn nonce(&self) -> String {
        let mut random = [0u8; 16];
        self.rng.fill(&mut random);
        crate::keys::hex(&random)
    }

    /// A new API key.
    pub(crate) fn new_key(&self, kind: KeyKind) -> ApiKey {
        ApiKey::generate(kind, &mut |bytes: &mut [u8]| self.rng.fill(bytes))
    }
}
