//! Finds and replaces strings in a byte stream that arrives in chunks of any size. In requests, placeholders are
//! replaced with secret values; in responses, secret values are replaced with placeholders.
//!
//! Only bytes that could be the start of a match are held back. All other bytes are passed on at once.

mod base64;
mod needle;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;

use zeroize::Zeroizing;

pub(crate) use needle::Needle;

/// The result of matching a needle (a string to be found) at one position of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    None,
    /// The input matches the needle so far, but ends before the needle does.
    Partial,
    /// The needle matches the input. The length of the match is in bytes.
    Full(usize),
}

/// The needles (strings to be found) with their replacements. If several needles match at one position, the longest
/// match is replaced.
pub(crate) struct Rules {
    needles: Vec<Needle>,
    /// For each byte value, the indexes of the needles whose matches may start with it. With this lookup, most
    /// positions of the input are skipped.
    by_first_byte: Vec<Vec<usize>>,
}

impl Rules {
    pub(crate) fn new(needles: Vec<Needle>) -> Self {
        let mut by_first_byte = vec![Vec::new(); 256];
        for (index, needle) in needles.iter().enumerate() {
            let mut first_bytes = needle.first_bytes();
            first_bytes.sort_unstable();
            first_bytes.dedup();
            for byte in first_bytes {
                if let Some(needles) = by_first_byte.get_mut(usize::from(byte)) {
                    needles.push(index);
                }
            }
        }
        Self { needles, by_first_byte }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.needles.is_empty()
    }

    /// Rewrites a complete string. Returns `None` if nothing was replaced.
    pub(crate) fn rewrite(&self, text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut out = Zeroizing::new(Vec::new());
        let (_, has_changed) = self.run(text, true, &mut out);
        has_changed.then_some(out)
    }

    /// Returns the indexes of the needles whose matches may start with this byte.
    fn needles_for(&self, byte: u8) -> &[usize] {
        self.by_first_byte.get(usize::from(byte)).map_or(&[], Vec::as_slice)
    }

    /// Rewrites `text` into `out`, up to the first position where more input is needed to decide whether a needle
    /// matches. If `is_last`, no more input follows. Returns the number of input bytes processed, and true if anything
    /// was replaced.
    fn run(&self, text: &[u8], is_last: bool, out: &mut Vec<u8>) -> (usize, bool) {
        let (mut at, mut has_changed) = (0, false);
        loop {
            let rest = text.get(at..).unwrap_or_default();
            let Some(skipped) = rest.iter().position(|byte| !self.needles_for(*byte).is_empty()) else {
                out.extend_from_slice(rest);
                return (text.len(), has_changed);
            };
            let (before, rest) = rest.split_at(skipped);
            out.extend_from_slice(before);
            at += skipped;
            match self.find_longest(rest, is_last) {
                RuleMatch::Undecided => return (at, has_changed),
                RuleMatch::None => {
                    out.extend(rest.first());
                    at += 1;
                }
                RuleMatch::Found { needle, length } => {
                    out.extend_from_slice(needle.replacement());
                    at += length;
                    has_changed = true;
                }
            }
        }
    }

    fn find_longest(&self, rest: &[u8], is_last: bool) -> RuleMatch<'_> {
        let mut best = RuleMatch::None;
        let first = rest.first().map_or(&[][..], |byte| self.needles_for(*byte));
        for needle in first.iter().filter_map(|index| self.needles.get(*index)) {
            match needle.match_at(rest, is_last) {
                Match::None => {}
                Match::Partial if is_last => {}
                Match::Partial => return RuleMatch::Undecided,
                Match::Full(length) => {
                    if !matches!(best, RuleMatch::Found { length: other, .. } if other >= length) {
                        best = RuleMatch::Found { needle, length };
                    }
                }
            }
        }
        best
    }
}

/// The result of matching all needles at one position of the input.
enum RuleMatch<'a> {
    None,
    Undecided,
    Found { needle: &'a Needle, length: usize },
}

/// Rewrites a byte stream that arrives in chunks.
pub(crate) struct Rewriter {
    rules: Arc<Rules>,
    pending: Zeroizing<Vec<u8>>,
}

impl Rewriter {
    pub(crate) fn new(rules: Arc<Rules>) -> Self {
        Self { rules, pending: Zeroizing::default() }
    }

    /// Processes a chunk. Returns the rewritten bytes, without those at the end that could be the start of a match.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.pending.len() + bytes.len());
        if self.pending.is_empty() {
            let (done, _) = self.rules.run(bytes, false, &mut out);
            self.pending.extend_from_slice(bytes.get(done..).unwrap_or_default());
        } else {
            self.pending.extend_from_slice(bytes);
            let (done, _) = self.rules.run(&self.pending, false, &mut out);
            self.pending.drain(..done);
        }
        out
    }

    /// Ends the stream. Returns the rewritten bytes that were held back.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.rules.run(&self.pending, true, &mut out);
        self.pending.clear();
        out
    }
}
