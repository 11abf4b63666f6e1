//! A value as text: each of its characters as it is, percent-encoded, or escaped as in JSON, in any mixture.

use super::Found;
use super::needle::compare;

/// The bytes with which a text that begins with this character may begin.
pub(super) fn beginnings(first: char) -> Vec<u8> {
    let mut bytes = vec![b'%', b'\\'];
    let mut buffer = [0; 4];
    bytes.extend(first.encode_utf8(&mut buffer).bytes().next());
    if first == ' ' {
        bytes.push(b'+');
    }
    bytes
}

/// As long as each character stands in one way alone, one place in the text is enough to know; that is nearly always so.
pub(super) fn find_at(value: &str, text: &[u8], is_last: bool) -> Found {
    let mut at = 0;
    for (begins, character) in value.char_indices() {
        let rest = text.get(at..).unwrap_or_default();
        let (mut only, mut count, mut may_go_on) = (0, 0, false);
        ways(character, rest, &mut |found| match found {
            Found::No => {}
            Found::Perhaps => may_go_on = true,
            Found::Yes(length) => (only, count) = (length, count + 1),
        });
        match count {
            0 if may_go_on => return Found::Perhaps,
            0 => return Found::No,
            1 if !may_go_on => at += only,
            _ => return find_all_ways(value.get(begins..).unwrap_or_default(), text, at, is_last),
        }
    }
    Found::Yes(at)
}

/// A character can be written in several ways, and some are the beginning of others (`%` and `%25`). So all places are
/// kept at which the text may have got so far.
fn find_all_ways(value: &str, text: &[u8], at: usize, is_last: bool) -> Found {
    let (mut ends, mut next) = (vec![at], Vec::new());
    let mut may_go_on = false;
    for character in value.chars() {
        for end in ends.drain(..) {
            let rest = text.get(end..).unwrap_or_default();
            ways(character, rest, &mut |found| match found {
                Found::No => {}
                Found::Perhaps => may_go_on = true,
                Found::Yes(length) => {
                    if !next.contains(&(end + length)) {
                        next.push(end + length);
                    }
                }
            });
        }
        if next.is_empty() {
            return if may_go_on { Found::Perhaps } else { Found::No };
        }
        std::mem::swap(&mut ends, &mut next);
    }
    // Where the bytes end the last character may be the beginning of a longer way to write it.
    if may_go_on && !is_last {
        return Found::Perhaps;
    }
    ends.into_iter().max().map_or(Found::No, Found::Yes)
}

/// Tries each way of writing one character.
fn ways(character: char, text: &[u8], tell: &mut impl FnMut(Found)) {
    let mut buffer = [0; 4];
    let bytes = character.encode_utf8(&mut buffer).as_bytes();
    if let [byte] = bytes {
        tell(compare(text, bytes, |left, right| left == right));
        if *byte == b' ' {
            tell(compare(text, b"+", |left, right| left == right));
        }
        if text.first() == Some(&b'%') {
            tell(percent(*byte, text));
        }
        if text.first() == Some(&b'\\')
            && let Some(short) = short_escape(*byte)
        {
            tell(compare(text, &[b'\\', short], |left, right| left == right));
        }
    } else {
        tell(raw_or_percent(bytes, text));
    }
    if text.first() == Some(&b'\\') {
        tell(escaped(character, text));
    }
}

/// As JSON escapes any character: `\u` and four digits, twice for those beyond the first 65,536.
fn escaped(character: char, text: &[u8]) -> Found {
    let (mut units, mut form) = ([0; 2], Vec::with_capacity(12));
    for unit in character.encode_utf16(&mut units) {
        form.extend(b"\\u");
        form.extend([12, 8, 4, 0].map(|shift| digit(*unit >> shift)));
    }
    compare(text, &form, |left, right| left.eq_ignore_ascii_case(&right))
}

/// The digit of the last four bits.
fn digit(bits: u16) -> u8 {
    char::from_digit(u32::from(bits & 15), 16).unwrap_or('0') as u8
}

/// The bytes of a character of several, each as it is or percent-encoded.
fn raw_or_percent(bytes: &[u8], text: &[u8]) -> Found {
    let mut at = 0;
    for byte in bytes {
        let rest = text.get(at..).unwrap_or_default();
        match rest.first() {
            None => return Found::Perhaps,
            Some(raw) if raw == byte => at += 1,
            Some(_) => match percent(*byte, rest) {
                Found::Yes(length) => at += length,
                other => return other,
            },
        }
    }
    Found::Yes(at)
}

fn percent(byte: u8, text: &[u8]) -> Found {
    compare(text, &[b'%', digit(u16::from(byte >> 4)), digit(u16::from(byte))], |left, right| {
        left.eq_ignore_ascii_case(&right)
    })
}

/// The letter that stands for a byte behind a backslash in JSON.
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
