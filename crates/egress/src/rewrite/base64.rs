//! A value somewhere inside of a text in base64, of either alphabet.
//!
//! Three bytes become four characters of six bits, so that a value looks different by how many bytes stand before it,
//! modulo three. The characters at its edges are shared with its neighbours; those between are the value's alone, and
//! these are found and replaced.

use super::Found;
use super::needle::compare;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Two sextets are written differently by each alphabet, and in URLs and JSON.
const FORMS_62: [&[u8]; 4] = [b"+", b"-", b"%2b", b"\\u002b"];
const FORMS_63: [&[u8]; 5] = [b"/", b"_", b"%2f", b"\\/", b"\\u002f"];
/// How a line may be broken inside of a text in base64: as it is, in JSON, in a URL.
const LINE_BREAKS: [&[u8]; 6] = [b"\r\n", b"\n", b"\\r\\n", b"\\n", b"%0d%0a", b"%0a"];
/// A broken line is waited for only after so many characters: otherwise the last line of an event would often be held
/// back for the one after it.
const CHARACTERS_BEFORE_BREAK: usize = 4;
/// Stands around a placeholder and takes the bits that are mixed with the neighbours'.
const FILLER: char = '*';

/// The sextets that are these bytes' alone, with so many others before them.
pub(super) fn own_sextets(bytes: &[u8], bytes_before: usize) -> Vec<u8> {
    let first = (8 * bytes_before).div_ceil(6);
    let end = 8 * (bytes_before + bytes.len()) / 6;
    let bit = |index: usize| {
        let index = index - 8 * bytes_before;
        bytes.get(index / 8).map_or(0, |byte| byte >> (7 - index % 8) & 1)
    };
    (first..end).map(|sextet| (0..6).fold(0, |sum, at| sum << 1 | bit(sextet * 6 + at))).collect()
}

/// The placeholder, made so long that what follows a value of that length is still decoded as before.
pub(super) fn fill(placeholder: &str, value_bytes: usize) -> String {
    let mut filled = format!("{FILLER}{placeholder}{FILLER}");
    while filled.len() % 3 != value_bytes % 3 {
        filled.push(FILLER);
    }
    filled
}

pub(super) fn write(sextets: &[u8]) -> Vec<u8> {
    sextets.iter().map(|sextet| plain(*sextet)).collect()
}

fn plain(sextet: u8) -> u8 {
    ALPHABET.get(usize::from(sextet)).copied().unwrap_or(b'A')
}

pub(super) fn beginnings(sextet: u8) -> Vec<u8> {
    forms(sextet, |forms| forms.iter().filter_map(|form| form.first().copied()).collect())
}

fn forms<T>(sextet: u8, with: impl FnOnce(&[&[u8]]) -> T) -> T {
    match sextet {
        62 => with(&FORMS_62),
        63 => with(&FORMS_63),
        _ => with(&[&[plain(sextet)]]),
    }
}

pub(super) fn find_at(sextets: &[u8], text: &[u8]) -> Found {
    let mut at = 0;
    for (index, sextet) in sextets.iter().enumerate() {
        let rest = text.get(at..).unwrap_or_default();
        let mut found = forms(*sextet, |forms| any_of(forms, rest));
        if found == Found::No && index >= CHARACTERS_BEFORE_BREAK {
            found = match any_of(&LINE_BREAKS, rest) {
                Found::Yes(length) => {
                    at += length;
                    let rest = rest.get(length..).unwrap_or_default();
                    forms(*sextet, |forms| any_of(forms, rest))
                }
                other => other,
            };
        }
        match found {
            Found::Yes(length) => at += length,
            other => return other,
        }
    }
    Found::Yes(at)
}

/// Single characters count as they are; escapes have no case.
fn any_of(forms: &[&[u8]], text: &[u8]) -> Found {
    let mut best = Found::No;
    for form in forms {
        let found = compare(text, form, |left, right| {
            left == right || (form.len() > 1 && left.eq_ignore_ascii_case(&right))
        });
        match found {
            Found::Yes(_) => return found,
            Found::Perhaps => best = found,
            Found::No => {}
        }
    }
    best
}
