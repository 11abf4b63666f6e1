//! Texts found in a stream of bytes and replaced, wherever it is cut: values by their placeholders on the way in,
//! placeholders by values on the way out.
//!
//! Only what could be the beginning of a text to be found is held back, so that a stream stays a stream.

mod base64;
mod needle;
#[cfg(test)]
mod tests;
mod written;

use std::sync::Arc;

use zeroize::Zeroizing;

pub(crate) use needle::Needle;

/// Whether a text begins at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    No,
    /// So far it does, and the bytes end there.
    Perhaps,
    /// It does, and is so many bytes long.
    Yes(usize),
}

/// What is found and what replaces it. Of several that begin at one place the longest counts.
pub(crate) struct Rules {
    needles: Vec<Needle>,
    /// For each byte the needles that may begin with it, so that most places are passed at a glance.
    by_beginning: Vec<Vec<usize>>,
}

impl Rules {
    pub(crate) fn new(needles: Vec<Needle>) -> Self {
        let mut by_beginning = vec![Vec::new(); 256];
        for (index, needle) in needles.iter().enumerate() {
            let mut beginnings = needle.beginnings();
            beginnings.sort_unstable();
            beginnings.dedup();
            for byte in beginnings {
                if let Some(needles) = by_beginning.get_mut(usize::from(byte)) {
                    needles.push(index);
                }
            }
        }
        Self { needles, by_beginning }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.needles.is_empty()
    }

    /// A text that is whole, rewritten; `None` if nothing was found in it.
    pub(crate) fn rewrite(&self, text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut out = Zeroizing::new(Vec::new());
        let (_, has_changed) = self.run(text, true, &mut out);
        has_changed.then_some(out)
    }

    /// The needles that may begin with this byte.
    fn beginning_with(&self, byte: u8) -> &[usize] {
        self.by_beginning.get(usize::from(byte)).map_or(&[], Vec::as_slice)
    }

    /// Writes what is decided to `out`; gives how much of the text that covers, and whether something was replaced.
    fn run(&self, text: &[u8], is_last: bool, out: &mut Vec<u8>) -> (usize, bool) {
        let (mut at, mut has_changed) = (0, false);
        loop {
            let rest = text.get(at..).unwrap_or_default();
            let Some(skipped) = rest.iter().position(|byte| !self.beginning_with(*byte).is_empty()) else {
                out.extend_from_slice(rest);
                return (text.len(), has_changed);
            };
            let (before, rest) = rest.split_at(skipped);
            out.extend_from_slice(before);
            at += skipped;
            match self.find(rest, is_last) {
                Place::Undecided => return (at, has_changed),
                Place::Nothing => {
                    out.extend(rest.first());
                    at += 1;
                }
                Place::Of { needle, length } => {
                    out.extend_from_slice(needle.replacement());
                    at += length;
                    has_changed = true;
                }
            }
        }
    }

    fn find(&self, rest: &[u8], is_last: bool) -> Place<'_> {
        let mut best = Place::Nothing;
        let first = rest.first().map_or(&[][..], |byte| self.beginning_with(*byte));
        for needle in first.iter().filter_map(|index| self.needles.get(*index)) {
            match needle.find_at(rest, is_last) {
                Found::No => {}
                Found::Perhaps if is_last => {}
                Found::Perhaps => return Place::Undecided,
                Found::Yes(length) => {
                    if !matches!(best, Place::Of { length: other, .. } if other >= length) {
                        best = Place::Of { needle, length };
                    }
                }
            }
        }
        best
    }
}

enum Place<'a> {
    Nothing,
    Undecided,
    Of { needle: &'a Needle, length: usize },
}

/// Rewrites one stream of bytes.
pub(crate) struct Rewriter {
    rules: Arc<Rules>,
    held: Zeroizing<Vec<u8>>,
}

impl Rewriter {
    pub(crate) fn new(rules: Arc<Rules>) -> Self {
        Self { rules, held: Zeroizing::default() }
    }

    /// What may be passed on now that these bytes have come.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.held.len() + bytes.len());
        if self.held.is_empty() {
            let (done, _) = self.rules.run(bytes, false, &mut out);
            self.held.extend_from_slice(bytes.get(done..).unwrap_or_default());
        } else {
            self.held.extend_from_slice(bytes);
            let (done, _) = self.rules.run(&self.held, false, &mut out);
            self.held.drain(..done);
        }
        out
    }

    /// What was held back, when nothing more comes.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.rules.run(&self.held, true, &mut out);
        self.held.clear();
        out
    }
}
