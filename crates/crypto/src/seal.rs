//! Secrets at rest: AES-256-GCM, each ciphertext bound to the one cell of the database it was written for.
//!
//! A sealed value is
//!
//! ```text
//! version (1 byte, = 1) | key id (8 bytes) | nonce (12 bytes) | ciphertext | tag (16 bytes)
//! ```
//!
//! and authenticates, beside itself, its version, its key and its cell. Somebody who can write to the
//! database but has no key can therefore neither change a secret nor move one to another row. The key's id
//! is a hash of the key, so a wrong master key is told from damaged data, and a ring needs no numbering.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest;
use zeroize::Zeroizing;

use crate::MasterKey;

const VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 8;
const TAG_BYTES: usize = 16;

/// Longest plaintext that is sealed, in bytes: secrets are credentials, not files.
pub const MAX_PLAINTEXT_BYTES: usize = 1024 * 1024;
/// How many bytes a sealed value has more than its plaintext.
pub const OVERHEAD_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_LEN + TAG_BYTES;

/// The place in the database that a sealed value belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell<'a> {
    /// The table's name.
    pub table: &'a str,
    /// The row's primary key, as text.
    pub row: &'a str,
    /// The column's name.
    pub column: &'a str,
}

/// Which key a value was sealed with: the start of a hash of the key. Shown in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SealKeyId([u8; KEY_ID_BYTES]);

impl SealKeyId {
    fn of(key: &MasterKey) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        // Keeps this hash apart from any other hash of the same bytes.
        context.update(b"herm seal key id\0");
        context.update(key.expose());
        let digest = context.finish();
        let mut id = [0u8; KEY_ID_BYTES];
        for (to, from) in id.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Self(id)
    }
}

impl fmt::Display for SealKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why a value could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The plaintext is longer than [`MAX_PLAINTEXT_BYTES`].
    #[error("a secret has at most {MAX_PLAINTEXT_BYTES} bytes, this one has {found}")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// Too short to be a sealed value.
    #[error("the stored value is too short to be a sealed secret")]
    Malformed,
    /// Written by another version of the format.
    #[error("the stored secret has format {found}; this server reads format {VERSION}")]
    UnknownVersion {
        /// The version byte found.
        found: u8,
    },
    /// Sealed with a key that is not in the ring.
    #[error("the stored secret was sealed with master key {id}, which this server was not given")]
    UnknownKey {
        /// The key's id.
        id: SealKeyId,
    },
    /// Changed after it was sealed, or read from another cell than it was sealed for.
    #[error("the stored secret is damaged or belongs to another row or column")]
    Refused,
}

/// The keys a server can open with, and the one it seals with.
pub struct KeyRing {
    active: SealKeyId,
    active_key: LessSafeKey,
    retired: BTreeMap<SealKeyId, LessSafeKey>,
}

impl KeyRing {
    /// A ring of one key.
    pub fn new(active: &MasterKey) -> Self {
        Self { active: SealKeyId::of(active), active_key: cipher(active), retired: BTreeMap::new() }
    }

    /// The same ring, able to open what was sealed with an earlier key too.
    #[must_use]
    pub fn with_retired(mut self, key: &MasterKey) -> Self {
        self.retired.insert(SealKeyId::of(key), cipher(key));
        self
    }

    /// The key new values are sealed with.
    pub fn active_id(&self) -> SealKeyId {
        self.active
    }

    /// Whether a sealed value should be sealed anew, because its key is no longer the active one.
    pub fn is_outdated(&self, sealed: &[u8]) -> bool {
        Sealed::parse(sealed).is_ok_and(|sealed| sealed.key_id != self.active)
    }

    /// Encrypts `plaintext` for `cell`. Each call takes 12 bytes from `fill_random`, which must not repeat
    /// under one key: random ones are safe for about 2³² values.
    pub fn seal(
        &self,
        cell: Cell<'_>,
        plaintext: &[u8],
        fill_random: &mut impl FnMut(&mut [u8]),
    ) -> Result<Vec<u8>, SealError> {
        let too_long = SealError::TooLong { found: plaintext.len() };
        if plaintext.len() > MAX_PLAINTEXT_BYTES {
            return Err(too_long);
        }
        let mut nonce = [0u8; NONCE_LEN];
        fill_random(&mut nonce);

        let mut sealed = Vec::with_capacity(plaintext.len() + OVERHEAD_BYTES);
        sealed.push(VERSION);
        sealed.extend_from_slice(&self.active.0);
        sealed.extend_from_slice(&nonce);
        let mut body = Zeroizing::new(plaintext.to_vec());
        let tag = self
            .active_key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bound_to(self.active, cell)),
                body.as_mut_slice(),
            )
            // The cipher refuses a plaintext for its length alone.
            .map_err(|_| too_long)?;
        sealed.extend_from_slice(&body);
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Decrypts what was sealed for `cell`; the plaintext is wiped from memory when dropped.
    pub fn open(&self, cell: Cell<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let Sealed { key_id, nonce, body } = Sealed::parse(sealed)?;
        let key = if key_id == self.active { Some(&self.active_key) } else { self.retired.get(&key_id) };
        let key = key.ok_or(SealError::UnknownKey { id: key_id })?;

        let mut buffer = Zeroizing::new(body.to_vec());
        let aad = Aad::from(bound_to(key_id, cell));
        let length = key
            .open_in_place(Nonce::assume_unique_for_key(nonce), aad, buffer.as_mut_slice())
            .map_err(|_| SealError::Refused)?
            .len();
        buffer.truncate(length);
        Ok(buffer)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let retired: Vec<String> = self.retired.keys().map(ToString::to_string).collect();
        f.debug_struct("KeyRing")
            .field("active", &self.active.to_string())
            .field("retired", &retired)
            .finish_non_exhaustive()
    }
}

/// A sealed value, taken apart.
struct Sealed<'a> {
    key_id: SealKeyId,
    nonce: [u8; NONCE_LEN],
    body: &'a [u8],
}

impl<'a> Sealed<'a> {
    fn parse(sealed: &'a [u8]) -> Result<Self, SealError> {
        let (version, rest) = sealed.split_first().ok_or(SealError::Malformed)?;
        if *version != VERSION {
            return Err(SealError::UnknownVersion { found: *version });
        }
        let (key_id, rest) = rest.split_first_chunk().ok_or(SealError::Malformed)?;
        let (nonce, body) = rest.split_first_chunk().ok_or(SealError::Malformed)?;
        if body.len() < TAG_BYTES {
            return Err(SealError::Malformed);
        }
        Ok(Self { key_id: SealKeyId(*key_id), nonce: *nonce, body })
    }
}

/// What is authenticated beside the ciphertext. Each part is preceded by its length, so that no two cells
/// read the same.
fn bound_to(key_id: SealKeyId, cell: Cell<'_>) -> Vec<u8> {
    let mut bound = vec![VERSION];
    bound.extend_from_slice(&key_id.0);
    for part in [cell.table, cell.row, cell.column] {
        bound.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bound.extend_from_slice(part.as_bytes());
    }
    bound
}

fn cipher(key: &MasterKey) -> LessSafeKey {
    #[expect(
        clippy::expect_used,
        reason = "the cipher refuses a key for its length alone, which the type fixes"
    )]
    let key = UnboundKey::new(&AES_256_GCM, key.expose()).expect("a key of 32 bytes");
    LessSafeKey::new(key)
}

#[cfg(test)]
mod tests;
