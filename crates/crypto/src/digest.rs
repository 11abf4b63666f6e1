//! Computation of SHA-256 hashes.

use aws_lc_rs::digest::{Context, SHA256};

/// Returns the SHA-256 hash of the concatenated parts.
pub fn sha256<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let digest = context.finish();
    let mut bytes = [0u8; 32];
    for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected value is the example in FIPS 180-4.
    #[test]
    fn the_hash_matches_the_standard_for_any_split() {
        let hash = sha256([b"a".as_slice(), b"bc".as_slice()]);
        assert_eq!(hash[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(hash, sha256([b"abc".as_slice()]));
    }
}
