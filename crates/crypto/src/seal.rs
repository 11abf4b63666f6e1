//! Encryption of stored secrets with AES-256-GCM. Each ciphertext is bound to one database cell (table, row
//! and column).
//!
//! The format of a sealed (encrypted) value is
//!
//! ```text
//! version (1 byte, = 1) | key id (8 bytes) | nonce (12 bytes) | ciphertext | tag (16 bytes)
//! ```
//!
//! The tag also authenticates the version, the key id and the cell. An attacker who can write to the database
//! but does not have the key can therefore neither change a secret nor move it to another cell. The key id is
//! derived from a hash of the key. It shows which master key a value was sealed with, so that a wrong master
//! key is not mistaken for corrupted data.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest;
use zeroize::Zeroizing;

use crate::MasterKey;

const VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 8;
const TAG_BYTES: usize = 16;

/// The maximum length of a plaintext in bytes. Longer plaintexts are rejected: secrets are credentials, not
/// files.
pub const MAX_PLAINTEXT_BYTES: usize = 1024 * 1024;
/// The number of bytes by which a sealed value is longer than its plaintext.
pub const OVERHEAD_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_LEN + TAG_BYTES;

/// The database cell to which a sealed (encrypted) value is bound. The value can be decrypted only for this
/// cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell<'a> {
    /// The name of the table.
    pub table: &'a str,
    /// The primary key of the row, as text.
    pub row: &'a str,
    /// The name of the column.
    pub column: &'a str,
}

/// The id of a master key: the first bytes of a hash of the key, displayed in hexadecimal. Each sealed
/// (encrypted) value contains the id of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SealKeyId([u8; KEY_ID_BYTES]);

impl SealKeyId {
    fn of(key: &MasterKey) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        // This prefix separates the id from all other hashes of the key (domain separation).
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

/// The reason why a value could not be sealed (encrypted) or opened (decrypted).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The plaintext is longer than [`MAX_PLAINTEXT_BYTES`].
    #[error("a secret must have at most {MAX_PLAINTEXT_BYTES} bytes, but this one has {found}")]
    TooLong {
        /// The length of the plaintext in bytes.
        found: usize,
    },
    /// The stored value is too short to be a sealed value.
    #[error("the stored value is too short to be a sealed secret")]
    Malformed,
    /// The stored value has a format version that this code does not support.
    #[error("the stored secret has format version {found}, but this server supports only version {VERSION}")]
    UnknownVersion {
        /// The format version of the stored value.
        found: u8,
    },
    /// The stored value was sealed with a master key that the key ring does not contain.
    #[error("the stored secret was encrypted with master key {id}, which this server does not have")]
    UnknownKey {
        /// The id of the master key with which the value was sealed.
        id: SealKeyId,
    },
    /// The value could not be authenticated, because it was altered or was sealed for a different cell.
    #[error("the stored secret is corrupted or belongs to another table, row or column")]
    AuthenticationFailed,
}

/// The master keys of a server. Only the active key encrypts new values. The others only decrypt existing
/// values.
pub struct KeyRing {
    active: SealKeyId,
    active_key: LessSafeKey,
    retired: BTreeMap<SealKeyId, LessSafeKey>,
}

impl KeyRing {
    /// Creates a key ring that contains only the active key.
    pub fn new(active: &MasterKey) -> Self {
        Self { active: SealKeyId::of(active), active_key: cipher(active), retired: BTreeMap::new() }
    }

    /// Adds an earlier master key, which is used to decrypt existing values but never to encrypt new ones.
    #[must_use]
    pub fn with_retired(mut self, key: &MasterKey) -> Self {
        self.retired.insert(SealKeyId::of(key), cipher(key));
        self
    }

    /// Returns the id of the active key, which seals new values.
    pub fn active_id(&self) -> SealKeyId {
        self.active
    }

    /// Returns true if the value was sealed with a key other than the active one and should be sealed again.
    pub fn is_outdated(&self, sealed: &[u8]) -> bool {
        Sealed::parse(sealed).is_ok_and(|sealed| sealed.key_id != self.active)
    }

    /// Encrypts `plaintext` for `cell`. Each call takes a random 12-byte nonce from `fill_random`. A nonce
    /// must not repeat under the same key. For up to about 2³² values per key, the risk of a repetition is
    /// negligible.
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
                Aad::from(associated_data(self.active, cell)),
                body.as_mut_slice(),
            )
            // The cipher can fail only because the plaintext is too long.
            .map_err(|_| too_long)?;
        sealed.extend_from_slice(&body);
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Decrypts a value that was sealed for `cell`. The memory of the plaintext is wiped when it is dropped.
    pub fn open(&self, cell: Cell<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let Sealed { key_id, nonce, body } = Sealed::parse(sealed)?;
        let key = if key_id == self.active { Some(&self.active_key) } else { self.retired.get(&key_id) };
        let key = key.ok_or(SealError::UnknownKey { id: key_id })?;

        let mut buffer = Zeroizing::new(body.to_vec());
        let aad = Aad::from(associated_data(key_id, cell));
        let length = key
            .open_in_place(Nonce::assume_unique_for_key(nonce), aad, buffer.as_mut_slice())
            .map_err(|_| SealError::AuthenticationFailed)?
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

/// The components of a sealed value, in the order in which they are stored.
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

/// Returns the associated data that is authenticated with the ciphertext. The table, row and column are each
/// preceded by their length, so that different cells never have the same data.
fn associated_data(key_id: SealKeyId, cell: Cell<'_>) -> Vec<u8> {
    let mut data = vec![VERSION];
    data.extend_from_slice(&key_id.0);
    for part in [cell.table, cell.row, cell.column] {
        data.extend_from_slice(&(part.len() as u64).to_be_bytes());
        data.extend_from_slice(part.as_bytes());
    }
    data
}

fn cipher(key: &MasterKey) -> LessSafeKey {
    #[expect(
        clippy::expect_used,
        reason = "the only possible error is a wrong key length, which the type rules out"
    )]
    let key = UnboundKey::new(&AES_256_GCM, key.expose()).expect("the key has 32 bytes");
    LessSafeKey::new(key)
}

#[cfg(test)]
mod tests;
