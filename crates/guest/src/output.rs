//! A command's output within its limit: the beginning, which is sent as it comes, and the end.

use crate::protocol::{Bytes, Rest};

/// What is kept of one output stream.
#[derive(Debug)]
pub struct Kept {
    head: Vec<u8>,
    tail: Vec<u8>,
    half: usize,
    dropped_bytes: u64,
}

impl Kept {
    /// Keeps at most `limit` bytes: half of it of the beginning, half of the end.
    pub fn new(limit: usize) -> Self {
        Self { head: Vec::new(), tail: Vec::new(), half: limit / 2, dropped_bytes: 0 }
    }

    /// Takes more output; gives the offset and the bytes that belong to the beginning.
    pub fn push(&mut self, data: &[u8]) -> Option<(u64, Vec<u8>)> {
        let room = self.half.saturating_sub(self.head.len());
        let (to_head, to_tail) = data.split_at(room.min(data.len()));
        let offset = self.head.len() as u64;
        self.head.extend_from_slice(to_head);
        self.tail.extend_from_slice(to_tail);
        // Trimmed only now and then, so that a flood costs no more than its bytes.
        if self.tail.len() > self.half * 2 {
            self.trim();
        }
        (!to_head.is_empty()).then(|| (offset, to_head.to_vec()))
    }

    fn trim(&mut self) {
        let excess = self.tail.len().saturating_sub(self.half);
        self.tail.drain(..excess);
        self.dropped_bytes += excess as u64;
    }

    /// The beginning.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// What follows the beginning.
    pub fn rest(&mut self) -> Rest {
        self.trim();
        Rest { dropped_bytes: self.dropped_bytes, tail: Bytes(self.tail.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the pieces: beginning, gap and end make up the whole, and no more than the limit is kept.
        #[test]
        fn the_ends_are_kept(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20), limit in 0usize..64) {
            let mut kept = Kept::new(limit);
            let mut sent = Vec::new();
            for piece in &pieces {
                if let Some((offset, data)) = kept.push(piece) {
                    prop_assert_eq!(offset as usize, sent.len());
                    sent.extend(data);
                }
            }
            let whole = pieces.concat();
            let rest = kept.rest();
            prop_assert_eq!(kept.head(), sent.as_slice());
            prop_assert!(whole.starts_with(&sent) && whole.ends_with(&rest.tail.0));
            prop_assert_eq!(sent.len() + rest.dropped_bytes as usize + rest.tail.0.len(), whole.len());
            prop_assert!(sent.len() + rest.tail.0.len() <= limit.max(whole.len().min(limit)));
        }
    }
}
