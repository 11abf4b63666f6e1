//! API keys: `herm_sk_` or `herm_pk_`, 32 random bytes in base62 (43 characters), and a checksum.
//!
//! The prefix lets scanners of public code find a leaked key, the checksum (CRC-32 of all that precedes it,
//! 6 characters of base62) tells a mistyped key from an unknown one without asking the database. Only the
//! hash of a key is stored: 256 random bits need neither salt nor a slow hash.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{base62, sha256};

const RANDOM_BYTES: usize = 32;
const BODY_CHARS: usize = 43;
const CHECKSUM_CHARS: usize = 6;
/// Characters of a whole key: prefix, body, checksum.
pub const KEY_CHARS: usize = KeyKind::PREFIX_CHARS + BODY_CHARS + CHECKSUM_CHARS;

/// What a key is for, told by its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// `herm_sk_`: a server-side key of an account, with scopes.
    Secret,
    /// `herm_pk_`: a short-lived token for a browser, for one deployment.
    Browser,
}

impl KeyKind {
    const PREFIX_CHARS: usize = 8;

    /// The eight characters a key of this kind begins with.
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

/// Why a text is not a key. The messages never repeat the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It begins with neither prefix.
    #[error("an API key begins with herm_sk_ or herm_pk_")]
    Prefix,
    /// It is cut off or has something attached.
    #[error("an API key has {KEY_CHARS} characters, this one has {found}; it may have been cut when copied")]
    Length {
        /// Bytes found.
        found: usize,
    },
    /// A character that base62 does not have.
    #[error("an API key holds only letters and digits after its prefix")]
    Alphabet,
    /// All looks right, but the checksum says that some character is wrong.
    #[error("the API key's checksum does not match: a character is mistyped, or it was made up by hand")]
    Checksum,
}

/// A well-formed key in plain text; wiped from memory when dropped. [`ApiKey::expose`] alone shows it.
#[derive(Clone)]
pub struct ApiKey {
    kind: KeyKind,
    text: Zeroizing<String>,
}

impl ApiKey {
    /// A new key from 32 bytes that `fill_random` provides.
    pub fn generate(kind: KeyKind, fill_random: &mut impl FnMut(&mut [u8])) -> Self {
        let mut random = Zeroizing::new([0u8; RANDOM_BYTES]);
        fill_random(random.as_mut_slice());
        let body = Zeroizing::new(base62::encode::<BODY_CHARS>(random.as_slice()));

        // Reserved whole, so that growing leaves no copy behind in freed memory.
        let mut text = Zeroizing::new(String::with_capacity(KEY_CHARS));
        text.push_str(kind.prefix());
        text.extend(body.iter().copied().map(char::from));
        let checksum = checksum(text.as_bytes());
        text.extend(checksum.into_iter().map(char::from));
        Self { kind, text }
    }

    /// Checks prefix, length, alphabet and checksum, in this order.
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

    /// What the key is for.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The plain text: to be shown once, to whoever made the key.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What is stored and looked up in place of the key.
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

/// The SHA-256 of a key's text. Compared in constant time only, so it has no `==`.
#[derive(Clone, Copy)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// A hash as it was stored.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether both are hashes of the same key; takes the same time either way.
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
    fn each_fault_has_its_error() {
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
        let shown = format!("{key:?} {:?}", key.hash());
        assert_eq!(shown, "ApiKey { kind: Secret, .. } KeyHash(…)");
    }

    proptest! {
        #[test]
        fn what_is_generated_parses(random: [u8; 32], browser: bool) {
            let kind = if browser { KeyKind::Browser } else { KeyKind::Secret };
            let key = key_of(kind, random);
            let parsed = ApiKey::parse(key.expose()).unwrap();
            prop_assert_eq!(parsed.kind(), kind);
            prop_assert_eq!(parsed.expose(), key.expose());
        }

        #[test]
        fn one_changed_character_is_noticed(random: [u8; 32], at in 0..KEY_CHARS, to in "[0-9A-Za-z]") {
            let key = key_of(KeyKind::Secret, random);
            let mut text = key.expose().to_owned();
            text.replace_range(at..=at, &to);
            prop_assume!(text != key.expose());
            prop_assert!(ApiKey::parse(&text).is_err());
        }

        #[test]
        fn any_text_is_parsed_without_a_panic(text in "(herm_[sp]k_)?.{0,80}") {
            let _ = ApiKey::parse(&text);
        }
    }
}
