//! Finds a value inside longer base64 text, in the standard and in the URL-safe alphabet.
//!
//! Base64 encodes three bytes as four characters of six bits (sextets), so the encoding of a value depends on the
//! number of bytes before the value, modulo three. The first and the last sextet may also hold bits of neighbouring
//! bytes. Only the sextets that hold nothing but bits of the value are matched and replaced.

use super::Match;
use super::needle::compare;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// The accepted spellings of the base64 characters for the value 62 (`+` or `-`) and the value 63 (`/` or `_`): raw,
/// percent-encoded and JSON-escaped.
const FORMS_62: [&[u8]; 4] = [b"+", b"-", b"%2b", b"\\u002b"];
const FORMS_63: [&[u8]; 5] = [b"/", b"_", b"%2f", b"\\/", b"\\u002f"];
/// The spellings of a line break inside base64 text: raw, JSON-escaped and percent-encoded.
const LINE_BREAKS: [&[u8]; 6] = [b"\r\n", b"\n", b"\\r\\n", b"\\n", b"%0d%0a", b"%0a"];
/// The minimum number of characters of a value that must match before a line break is accepted inside the match.
/// Without this minimum, the end of a line of server-sent events would often look like the start of a match, and the
/// line would be held back until the next event.
const MIN_CHARS_BEFORE_BREAK: usize = 4;
/// The filler character, added on both sides of a placeholder that is then encoded as base64. Base64 characters that
/// also hold bits of the bytes next to the value are not replaced. This may garble the fillers, but never the
/// placeholder between them.
const FILLER: char = '*';

/// Returns the sextets (six-bit base64 characters) that hold only bits of `bytes`, if `bytes_before` other bytes are
/// encoded before `bytes`.
pub(super) fn exclusive_sextets(bytes: &[u8], bytes_before: usize) -> Vec<u8> {
    let first = (8 * bytes_before).div_ceil(6);
    let end = 8 * (bytes_before + bytes.len()) / 6;
    let bit = |index: usize| {
        let index = index - 8 * bytes_before;
        bytes.get(index / 8).map_or(0, |byte| byte >> (7 - index % 8) & 1)
    };
    (first..end).map(|sextet| (0..6).fold(0, |sum, at| sum << 1 | bit(sextet * 6 + at))).collect()
}

/// Adds fillers to the placeholder until its length and `value_bytes` have the same remainder modulo three, so that the
/// base64 text after the replacement still decodes correctly.
pub(super) fn pad_placeholder(placeholder: &str, value_bytes: usize) -> String {
    let mut filled = format!("{FILLER}{placeholder}{FILLER}");
    while filled.len() % 3 != value_bytes % 3 {
        filled.push(FILLER);
    }
    filled
}

pub(super) fn encode_sextets(sextets: &[u8]) -> Vec<u8> {
    sextets.iter().map(|sextet| encode_sextet(*sextet)).collect()
}

fn encode_sextet(sextet: u8) -> u8 {
    ALPHABET.get(usize::from(sextet)).copied().unwrap_or(b'A')
}

pub(super) fn first_bytes(sextet: u8) -> Vec<u8> {
    forms(sextet, |forms| forms.iter().filter_map(|form| form.first().copied()).collect())
}

fn forms<T>(sextet: u8, with: impl FnOnce(&[&[u8]]) -> T) -> T {
    match sextet {
        62 => with(&FORMS_62),
        63 => with(&FORMS_63),
        _ => with(&[&[encode_sextet(sextet)]]),
    }
}

pub(super) fn match_at(sextets: &[u8], text: &[u8]) -> Match {
    let mut at = 0;
    for (index, sextet) in sextets.iter().enumerate() {
        let rest = text.get(at..).unwrap_or_default();
        let mut found = forms(*sextet, |forms| any_of(forms, rest));
        if found == Match::None && index >= MIN_CHARS_BEFORE_BREAK {
            found = match any_of(&LINE_BREAKS, rest) {
                Match::Full(length) => {
                    at += length;
                    let rest = rest.get(length..).unwrap_or_default();
                    forms(*sextet, |forms| any_of(forms, rest))
                }
                other => other,
            };
        }
        match found {
            Match::Full(length) => at += length,
            other => return other,
        }
    }
    Match::Full(at)
}

/// Matches any of the spellings in `forms` at the start of `text`. Single characters are case-sensitive; escape
/// sequences are not.
fn any_of(forms: &[&[u8]], text: &[u8]) -> Match {
    let mut best = Match::None;
    for form in forms {
        let found = compare(text, form, |left, right| {
            left == right || (form.len() > 1 && left.eq_ignore_ascii_case(&right))
        });
        match found {
            Match::Full(_) => return found,
            Match::Partial => best = found,
            Match::None => {}
        }
    }
    best
}
