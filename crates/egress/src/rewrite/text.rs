//! Matches a value in text where each character of the value may be raw, percent-encoded or JSON-escaped, in any
//! mixture.

use super::Match;
use super::needle::compare;

/// Returns the bytes with which the raw or an encoded form of this character may start.
pub(super) fn first_bytes(first: char) -> Vec<u8> {
    let mut bytes = vec![b'%', b'\\'];
    let mut buffer = [0; 4];
    bytes.extend(first.encode_utf8(&mut buffer).bytes().next());
    if first == ' ' {
        bytes.push(b'+');
    }
    bytes
}

/// Matches a value at the start of `text`. Nearly always, each character matches in exactly one way, so only one end
/// position is tracked. Otherwise `match_all_spellings` takes over.
pub(super) fn match_at(value: &str, text: &[u8], is_last: bool) -> Match {
    let mut at = 0;
    for (start, character) in value.char_indices() {
        let rest = text.get(at..).unwrap_or_default();
        let (mut matched, mut count, mut is_partial) = (0, 0, false);
        match_char(character, rest, &mut |found| match found {
            Match::None => {}
            Match::Partial => is_partial = true,
            Match::Full(length) => (matched, count) = (length, count + 1),
        });
        match count {
            0 if is_partial => return Match::Partial,
            0 => return Match::None,
            1 if !is_partial => at += matched,
            _ => return match_all_spellings(value.get(start..).unwrap_or_default(), text, at, is_last),
        }
    }
    Match::Full(at)
}

/// Matches a value in which some characters match in several ways. For example, `%` matches both `%` and `%25`, which
/// also starts with `%`. Tracks all positions at which the match may end.
fn match_all_spellings(value: &str, text: &[u8], at: usize, is_last: bool) -> Match {
    let (mut ends, mut next) = (vec![at], Vec::new());
    let mut is_partial = false;
    for character in value.chars() {
        for end in ends.drain(..) {
            let rest = text.get(end..).unwrap_or_default();
            match_char(character, rest, &mut |found| match found {
                Match::None => {}
                Match::Partial => is_partial = true,
                Match::Full(length) => {
                    if !next.contains(&(end + length)) {
                        next.push(end + length);
                    }
                }
            });
        }
        if next.is_empty() {
            return if is_partial { Match::Partial } else { Match::None };
        }
        std::mem::swap(&mut ends, &mut next);
    }
    // The last character has matched, but a longer form of it may match when more input arrives.
    if is_partial && !is_last {
        return Match::Partial;
    }
    ends.into_iter().max().map_or(Match::None, Match::Full)
}

/// Matches one character at the start of `text`. Reports the result for each form of the character: raw,
/// percent-encoded and JSON-escaped.
fn match_char(character: char, text: &[u8], report: &mut impl FnMut(Match)) {
    let mut buffer = [0; 4];
    let bytes = character.encode_utf8(&mut buffer).as_bytes();
    if let [byte] = bytes {
        report(compare(text, bytes, |left, right| left == right));
        if *byte == b' ' {
            report(compare(text, b"+", |left, right| left == right));
        }
        if text.first() == Some(&b'%') {
            report(percent(*byte, text));
        }
        if text.first() == Some(&b'\\')
            && let Some(short) = short_escape(*byte)
        {
            report(compare(text, &[b'\\', short], |left, right| left == right));
        }
    } else {
        report(raw_or_percent(bytes, text));
    }
    if text.first() == Some(&b'\\') {
        report(escaped(character, text));
    }
}

/// Matches the JSON escape of a character: `\u` and four hexadecimal digits, or two such escapes (a surrogate pair)
/// for a character above U+FFFF.
fn escaped(character: char, text: &[u8]) -> Match {
    let (mut units, mut form) = ([0; 2], Vec::with_capacity(12));
    for unit in character.encode_utf16(&mut units) {
        form.extend(b"\\u");
        form.extend([12, 8, 4, 0].map(|shift| digit(*unit >> shift)));
    }
    compare(text, &form, |left, right| left.eq_ignore_ascii_case(&right))
}

/// Returns the low four bits as a hexadecimal digit in lower case.
fn digit(bits: u16) -> u8 {
    char::from_digit(u32::from(bits & 15), 16).unwrap_or('0') as u8
}

/// Matches a multi-byte character, of which each byte may be raw or percent-encoded.
fn raw_or_percent(bytes: &[u8], text: &[u8]) -> Match {
    let mut at = 0;
    for byte in bytes {
        let rest = text.get(at..).unwrap_or_default();
        match rest.first() {
            None => return Match::Partial,
            Some(raw) if raw == byte => at += 1,
            Some(_) => match percent(*byte, rest) {
                Match::Full(length) => at += length,
                other => return other,
            },
        }
    }
    Match::Full(at)
}

fn percent(byte: u8, text: &[u8]) -> Match {
    compare(text, &[b'%', digit(u16::from(byte >> 4)), digit(u16::from(byte))], |left, right| {
        left.eq_ignore_ascii_case(&right)
    })
}

/// Returns the character after the backslash in the short JSON escape of a byte, for example `n` for a line feed.
/// Returns `None` if there is no short escape.
fn short_escape(byte: u8) -> Option<u8> {
    match byte {
        b'"' | b'\\' | b'/' => Some(byte),
        8 => Some(b'b'),
        12 => Some(b'f'),
        b'\n' => Some(b'n'),
        b'\r' => Some(b'r'),
        b'\t' => Some(b't'),
        _ => None,
    }
}
