//! Encryption of stored values under the master key.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use herm_crypto::{ApiKey, Cell, KeyKind, KeyRing, SealError};
use herm_types::Rng;
use zeroize::Zeroizing;

/// Encrypts and decrypts values. Each encrypted value can be decrypted only for the database cell (table, row
/// and column) for which it was encrypted. Cheap to clone.
#[derive(Clone)]
pub struct Sealer {
    keys: Arc<KeyRing>,
    rng: Arc<dyn Rng>,
}

impl Sealer {
    pub fn new(keys: KeyRing, rng: Arc<dyn Rng>) -> Self {
        Self { keys: Arc::new(keys), rng }
    }

    /// Encrypts a value for `cell`. Returns the ciphertext in base64.
    ///
    /// # Errors
    /// Fails if the plaintext exceeds the maximum length.
    pub(crate) fn seal(&self, cell: Cell<'_>, plaintext: &[u8]) -> Result<String, SealError> {
        let sealed = self.keys.seal(cell, plaintext, &mut |bytes: &mut [u8]| self.rng.fill(bytes))?;
        Ok(STANDARD.encode(sealed))
    }

    /// Decrypts a value that was encrypted for `cell`.
    ///
    /// # Errors
    /// Fails if the stored text was altered, or if it was encrypted for another cell or under a master key
    /// that this server does not have.
    pub(crate) fn open(&self, cell: Cell<'_>, sealed: &str) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let sealed = STANDARD.decode(sealed).map_err(|_| SealError::Malformed)?;
        self.keys.open(cell, &sealed)
    }

    /// Returns 128 random bits in hexadecimal.
    pub(crate) fn nonce(&self) -> String {
        let mut random = [0u8; 16];
        self.rng.fill(&mut random);
        crate::keys::hex(&random)
    }

    /// Generates an API key or a browser token.
    pub(crate) fn new_key(&self, kind: KeyKind) -> ApiKey {
        ApiKey::generate(kind, &mut |bytes: &mut [u8]| self.rng.fill(bytes))
    }
}
