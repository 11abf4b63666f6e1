//! The key that encrypts secrets at rest: 32 random bytes, written as base64.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Bytes of a master key (AES-256).
pub const MASTER_KEY_BYTES: usize = 32;

/// Why a text is not a master key. The messages never repeat the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MasterKeyError {
    /// Not base64 of the standard alphabet with padding.
    #[error("a master key is {MASTER_KEY_BYTES} bytes in base64; this is not base64")]
    Base64,
    /// The wrong number of bytes.
    #[error("a master key is {MASTER_KEY_BYTES} bytes in base64; this has {found}")]
    Length {
        /// Bytes found after decoding.
        found: usize,
    },
}

/// A master key; wiped from memory when dropped.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; MASTER_KEY_BYTES]>);

/// A key from its base64 text; white space around it, such as a file's last newline, is not part of it.
pub fn from_base64(text: &str) -> Result<MasterKey, MasterKeyError> {
    let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| MasterKeyError::Base64)?);
    let array: [u8; MASTER_KEY_BYTES] =
        bytes.as_slice().try_into().map_err(|_| MasterKeyError::Length { found: bytes.len() })?;
    Ok(MasterKey(Zeroizing::new(array)))
}

/// A new key from 32 bytes that `fill_random` provides.
pub fn generate(fill_random: &mut impl FnMut(&mut [u8])) -> MasterKey {
    let mut bytes = Zeroizing::new([0u8; MASTER_KEY_BYTES]);
    fill_random(bytes.as_mut_slice());
    MasterKey(bytes)
}

impl MasterKey {
    /// The text to keep in a file only the server can read.
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
    fn a_key_survives_its_text() {
        let key = generate(&mut |buffer: &mut [u8]| buffer.fill(0xab));
        let text = key.to_base64();
        assert_eq!(from_base64(&format!("{}\n", *text)).unwrap().expose(), &[0xab; 32]);
    }

    #[test]
    fn other_texts_are_refused() {
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
