//! Limits how much of a command's output is retained: the beginning and the end are kept, and the middle is dropped.
//! The beginning is also sent to the server while the command runs.

use crate::protocol::{Bytes, OutputTail};

/// The retained beginning and end of a command's standard output or standard error.
#[derive(Debug)]
pub struct RetainedOutput {
    head: Vec<u8>,
    tail: Vec<u8>,
    half: usize,
    dropped_bytes: u64,
}

impl RetainedOutput {
    /// Creates an empty output that retains at most `limit` bytes: half from the beginning, half from the end.
    pub fn new(limit: usize) -> Self {
        Self { head: Vec::new(), tail: Vec::new(), half: limit / 2, dropped_bytes: 0 }
    }

    /// Appends `data` to the output. Returns the part of `data` that belongs to the retained beginning, and the
    /// position of that part in the output. Returns `None` if the beginning is already complete.
    pub fn push(&mut self, data: &[u8]) -> Option<(u64, Vec<u8>)> {
        let available = self.half.saturating_sub(self.head.len());
        let (to_head, to_tail) = data.split_at(available.min(data.len()));
        let offset = self.head.len() as u64;
        self.head.extend_from_slice(to_head);
        self.tail.extend_from_slice(to_tail);
        // Trim only when the tail is twice as long as needed, so that the total cost grows linearly with the size of
        // the output.
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

    /// Returns the retained beginning of the output.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Returns the retained end of the output and the number of bytes dropped between the beginning and the end.
    pub fn tail(&mut self) -> OutputTail {
        self.trim();
        OutputTail { dropped_bytes: self.dropped_bytes, tail: Bytes(self.tail.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However the output is divided into chunks, the beginning, the dropped bytes and the end add up to the whole
        /// output, and at most `limit` bytes are retained.
        #[test]
        fn the_beginning_and_the_end_are_retained(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20), limit in 0usize..64) {
            let mut output = RetainedOutput::new(limit);
            let mut sent = Vec::new();
            for piece in &pieces {
                if let Some((offset, data)) = output.push(piece) {
                    prop_assert_eq!(offset as usize, sent.len());
                    sent.extend(data);
                }
            }
            let whole = pieces.concat();
            let tail = output.tail();
            prop_assert_eq!(output.head(), sent.as_slice());
            prop_assert!(whole.starts_with(&sent) && whole.ends_with(&tail.tail.0));
            prop_assert_eq!(sent.len() + tail.dropped_bytes as usize + tail.tail.0.len(), whole.len());
            prop_assert!(sent.len() + tail.tail.0.len() <= limit.max(whole.len().min(limit)));
        }
    }
}
