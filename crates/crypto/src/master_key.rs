//! The master key, which encrypts stored secrets: 32 random bytes, written as base64.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// The length of a master key in bytes (AES-256).
pub const MASTER_KEY_BYTES: usize = 32;

/// The error for a string that is not a master key. The error messages never contain the string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MasterKeyError {
    /// The text is not base64 with the standard alphabet and padding.
    #[error("a master key must be {MASTER_KEY_BYTES} bytes in base64, but this is not base64")]
    Base64,
    /// The decoded key has the wrong length.
    #[error("a master key must be {MASTER_KEY_BYTES} bytes in base64, but this has {found} bytes")]
    Length {
        /// The number of bytes that the text decodes to.
        found: usize,
    },
}

/// A master key. The memory is wiped when the key is dropped.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; MASTER_KEY_BYTES]>);

/// Parses a master key from base64. Surrounding white space, for example the final newline of a file, is
/// ignored.
pub fn from_base64(text: &str) -> Result<MasterKey, MasterKeyError> {
    let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| MasterKeyError::Base64)?);
    let array: [u8; MASTER_KEY_BYTES] =
        bytes.as_slice().try_into().map_err(|_| MasterKeyError::Length { found: bytes.len() })?;
    Ok(MasterKey(Zeroizing::new(array)))
}

/// Generates a master key from 32 random bytes, which `fill_random` writes into a buffer.
pub fn generate(fill_random: &mut impl FnMut(&mut [u8])) -> MasterKey {
    let mut bytes = Zeroizing::new([0u8; MASTER_KEY_BYTES]);
    fill_random(bytes.as_mut_slice());
    MasterKey(bytes)
}

impl MasterKey {
    /// Returns the key as base64. The text must be stored only in a file that no other user can read.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0.as_slice()))
    }

    pub(crate) fn expose(&self) -> &[u8; MASTER_KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_round_trips_through_base64() {
        let key = generate(&mut |buffer: &mut [u8]| buffer.fill(0xab));
        let text = key.to_base64();
        assert_eq!(from_base64(&format!("{}\n", *text)).unwrap().expose(), &[0xab; 32]);
    }

    #[test]
    fn an_invalid_key_is_rejected() {
        assert_eq!(from_base64("not base64!").unwrap_err(), MasterKeyError::Base64);
        assert_eq!(from_base64("").unwrap_err(), MasterKeyError::Length { found: 0 });
        assert_eq!(from_base64(&STANDARD.encode([1; 31])).unwrap_err(), MasterKeyError::Length { found: 31 });
    }

    #[test]
    fn debug_output_does_not_show_the_key() {
        let key = generate(&mut |buffer: &mut [u8]| buffer.fill(1));
        assert_eq!(format!("{key:?}"), "MasterKey(…)");
    }
}
