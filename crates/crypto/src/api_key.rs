//! API keys: the prefix `herm_sk_` or `herm_pk_`, 32 random bytes in base62 (43 characters), and a checksum.
//!
//! The prefix lets secret scanners find keys that were published by mistake. The checksum is the CRC-32 of
//! everything before it, as 6 characters in base62. With it, a mistyped key is detected without a database
//! lookup. Only the hash of a key is stored. A key has 256 random bits, so the hash needs no salt and need
//! not be slow.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{base62, sha256};

const RANDOM_BYTES: usize = 32;
const BODY_CHARS: usize = 43;
const CHECKSUM_CHARS: usize = 6;
/// The length of a key in characters: prefix, random part and checksum.
pub const KEY_CHARS: usize = KeyKind::PREFIX_CHARS + BODY_CHARS + CHECKSUM_CHARS;

/// The kind of a key, indicated by the prefix of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// `herm_sk_`: an API key for use by servers.
    Secret,
    /// `herm_pk_`: a short-lived token for a browser, restricted to one deployment.
    Browser,
}

impl KeyKind {
    const PREFIX_CHARS: usize = 8;

    /// Returns the prefix of keys of this kind, which has eight characters.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Secret => "herm_sk_",
            Self::Browser => "herm_pk_",
        }
    }

    fn of(text: &str) -> Option<Self> {
        [Self::Secret, Self::Browser].into_iter().find(|kind| text.starts_with(kind.prefix()))
    }
}

/// The error for a string that is not a well-formed key. The error messages never contain the string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text starts neither with `herm_sk_` nor with `herm_pk_`.
    #[error("an API key must start with herm_sk_ or herm_pk_")]
    Prefix,
    /// The text has the wrong length for an API key.
    #[error(
        "an API key must have {KEY_CHARS} characters, but this one has {found}; it may have been copied incompletely"
    )]
    Length {
        /// The length of the rejected text in bytes.
        found: usize,
    },
    /// The text contains a character after the prefix that is not a letter or digit.
    #[error("an API key must contain only letters and digits after its prefix")]
    Alphabet,
    /// The checksum does not match the rest of the text.
    #[error("the checksum of the API key does not match; check the key for typing errors")]
    Checksum,
}

/// A well-formed key in plain text. The memory is wiped when the key is dropped. Only [`ApiKey::expose`]
/// returns the text.
#[derive(Clone)]
pub struct ApiKey {
    kind: KeyKind,
    text: Zeroizing<String>,
}

impl ApiKey {
    /// Generates a key from 32 random bytes, which `fill_random` writes into a buffer.
    pub fn generate(kind: KeyKind, fill_random: &mut impl FnMut(&mut [u8])) -> Self {
        let mut random = Zeroizing::new([0u8; RANDOM_BYTES]);
        fill_random(random.as_mut_slice());
        let body = Zeroizing::new(base62::encode::<BODY_CHARS>(random.as_slice()));

        // Allocate the full size at once. If the string grew, a copy of the key would remain in freed memory.
        let mut text = Zeroizing::new(String::with_capacity(KEY_CHARS));
        text.push_str(kind.prefix());
        text.extend(body.iter().copied().map(char::from));
        let checksum = checksum(text.as_bytes());
        text.extend(checksum.into_iter().map(char::from));
        Self { kind, text }
    }

    /// Parses a key. Checks prefix, length, alphabet and checksum, in this order.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let kind = KeyKind::of(text).ok_or(KeyError::Prefix)?;
        if text.len() != KEY_CHARS {
            return Err(KeyError::Length { found: text.len() });
        }
        if !text.bytes().skip(KeyKind::PREFIX_CHARS).all(base62::is_character) {
            return Err(KeyError::Alphabet);
        }
        let (signed, found) =
            text.as_bytes().split_last_chunk::<CHECKSUM_CHARS>().ok_or(KeyError::Checksum)?;
        if checksum(signed) != *found {
            return Err(KeyError::Checksum);
        }
        Ok(Self { kind, text: Zeroizing::new(text.to_owned()) })
    }

    /// Returns the kind of the key: API key or browser token.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Returns the plain text of the key. It may be shown only once, to the creator of the key.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Returns the hash under which the key is stored and looked up.
    pub fn hash(&self) -> KeyHash {
        KeyHash(sha256([self.text.as_bytes()]))
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("kind", &self.kind).finish_non_exhaustive()
    }
}

fn checksum(text: &[u8]) -> [u8; CHECKSUM_CHARS] {
    base62::encode(&crc32fast::hash(text).to_be_bytes())
}

/// The SHA-256 hash of a key. The type does not implement `==`, because hashes must be compared in constant
/// time.
#[derive(Clone, Copy)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Creates a hash from its stored bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the hash. They are safe to store.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Compares two hashes in constant time. Returns true if they are equal.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key_of(kind: KeyKind, random: [u8; 32]) -> ApiKey {
        ApiKey::generate(kind, &mut |buffer: &mut [u8]| buffer.copy_from_slice(&random))
    }

    #[test]
    fn the_format_is_fixed() {
        let key = key_of(KeyKind::Secret, [0; 32]);
        assert_eq!(key.expose(), "herm_sk_00000000000000000000000000000000000000000000sCBAJ");
        assert_eq!(key.expose().len(), KEY_CHARS);
    }

    #[test]
    fn the_hash_is_sha_256_of_the_text() {
        let hash = key_of(KeyKind::Secret, [0; 32]).hash();
        let hex: String = hash.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "42b8de920c70c58ec182acd4ca691284d5a3cc37dfad2d0372ab59e21b053c1d");
    }

    #[test]
    fn hashes_match_for_the_same_key_only() {
        let first = key_of(KeyKind::Secret, [1; 32]);
        let again = ApiKey::parse(first.expose()).unwrap();
        let other = key_of(KeyKind::Browser, [1; 32]);
        assert!(first.hash().matches(&KeyHash::from_bytes(*again.hash().as_bytes())));
        assert!(!first.hash().matches(&other.hash()));
    }

    #[test]
    fn each_kind_of_invalid_key_has_its_error() {
        let key = key_of(KeyKind::Secret, [7; 32]);
        let text = key.expose();
        assert_eq!(ApiKey::parse("").unwrap_err(), KeyError::Prefix);
        assert_eq!(ApiKey::parse("sk-ant-whatever").unwrap_err(), KeyError::Prefix);
        assert_eq!(ApiKey::parse("herm_sk_").unwrap_err(), KeyError::Length { found: 8 });
        assert_eq!(
            ApiKey::parse(&format!("{text}\n")).unwrap_err(),
            KeyError::Length { found: KEY_CHARS + 1 }
        );
        assert_eq!(ApiKey::parse(&format!("{}-", &text[..KEY_CHARS - 1])).unwrap_err(), KeyError::Alphabet);
        assert_eq!(ApiKey::parse(&text.replace("_sk_", "_pk_")).unwrap_err(), KeyError::Checksum);
    }

    #[test]
    fn debug_output_shows_no_part_of_the_key() {
        let key = key_of(KeyKind::Secret, [9; 32]);
        let debug = format!("{key:?} {:?}", key.hash());
        assert_eq!(debug, "ApiKey { kind: Secret, .. } KeyHash(…)");
    }

    proptest! {
        #[test]
        fn a_generated_key_parses(random: [u8; 32], browser: bool) {
            let kind = if browser { KeyKind::Browser } else { KeyKind::Secret };
            let key = key_of(kind, random);
            let parsed = ApiKey::parse(key.expose()).unwrap();
            prop_assert_eq!(parsed.kind(), kind);
            prop_assert_eq!(parsed.expose(), key.expose());
        }

        #[test]
        fn one_changed_character_is_detected(random: [u8; 32], at in 0..KEY_CHARS, to in "[0-9A-Za-z]") {
            let key = key_of(KeyKind::Secret, random);
            let mut text = key.expose().to_owned();
            text.replace_range(at..=at, &to);
            prop_assume!(text != key.expose());
            prop_assert!(ApiKey::parse(&text).is_err());
        }

        #[test]
        fn parsing_any_text_does_not_panic(text in "(herm_[sp]k_)?.{0,80}") {
            let _ = ApiKey::parse(&text);
        }
    }
}
