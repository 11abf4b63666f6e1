//! A string to be found, in one of its encodings, and the replacement for it.

use zeroize::Zeroizing;

use super::{Match, base64, text};

pub(crate) struct Needle {
    form: Form,
    replacement: Zeroizing<Vec<u8>>,
}

enum Form {
    /// Matches exactly these bytes.
    Literal(Zeroizing<Vec<u8>>),
    /// Matches this text, with each character either raw, percent-encoded or JSON-escaped.
    Text(Zeroizing<String>),
    /// Matches a value inside longer base64 text. Contains only the sextets (six-bit characters) that hold nothing but
    /// bits of the value.
    Base64(Zeroizing<Vec<u8>>),
    /// Matches these bytes as hexadecimal digits in upper or lower case.
    Hex(Zeroizing<Vec<u8>>),
}

impl Needle {
    /// Returns a needle that matches exactly the bytes of `text`.
    pub(crate) fn literal(text: &str, replacement: Zeroizing<Vec<u8>>) -> Self {
        Self { form: Form::Literal(Zeroizing::new(text.as_bytes().to_vec())), replacement }
    }

    /// Returns needles that match a value in all supported encodings. Each needle replaces the value with the
    /// placeholder in the same encoding.
    pub(crate) fn all_forms(value: &str, placeholder: &str) -> Vec<Self> {
        let own = |bytes: &[u8]| Zeroizing::new(bytes.to_vec());
        let mut needles = vec![
            Self {
                form: Form::Text(Zeroizing::new(value.to_owned())),
                replacement: own(placeholder.as_bytes()),
            },
            Self { form: Form::Hex(own(value.as_bytes())), replacement: own(hex(placeholder).as_bytes()) },
        ];
        let filled = base64::pad_placeholder(placeholder, value.len());
        needles.extend((0..3).map(|bytes_before| Self {
            form: Form::Base64(Zeroizing::new(base64::exclusive_sextets(value.as_bytes(), bytes_before))),
            replacement: Zeroizing::new(base64::encode_sextets(&base64::exclusive_sextets(
                filled.as_bytes(),
                bytes_before,
            ))),
        }));
        needles
    }

    pub(super) fn replacement(&self) -> &[u8] {
        &self.replacement
    }

    /// Returns the bytes with which a match of the needle may start.
    pub(super) fn first_bytes(&self) -> Vec<u8> {
        match &self.form {
            Form::Literal(text) => text.first().copied().into_iter().collect(),
            Form::Text(value) => value.chars().next().map(text::first_bytes).unwrap_or_default(),
            Form::Base64(sextets) => {
                sextets.first().map(|first| base64::first_bytes(*first)).unwrap_or_default()
            }
            Form::Hex(bytes) => bytes.first().map(|byte| hex_digits(*byte).0.to_vec()).unwrap_or_default(),
        }
    }

    /// Matches the needle at the start of `text`. If `is_last` is false, more input may follow.
    pub(super) fn match_at(&self, text: &[u8], is_last: bool) -> Match {
        match &self.form {
            Form::Literal(literal) => compare(text, literal, |left, right| left == right),
            Form::Text(value) => text::match_at(value, text, is_last),
            Form::Base64(sextets) => base64::match_at(sextets, text),
            Form::Hex(bytes) => match_hex(bytes, text),
        }
    }
}

/// Compares `text` and `with` byte by byte, up to the length of the shorter one. If they are equal so far but `text` is
/// shorter, the match is partial.
pub(super) fn compare(text: &[u8], with: &[u8], is_same: impl Fn(u8, u8) -> bool) -> Match {
    if !text.iter().zip(with).all(|(left, right)| is_same(*left, *right)) {
        return Match::None;
    }
    if text.len() < with.len() { Match::Partial } else { Match::Full(with.len()) }
}

/// Returns the high and the low hexadecimal digit of a byte, each in lower case and in upper case.
fn hex_digits(byte: u8) -> ([u8; 2], [u8; 2]) {
    let both = |nibble: u8| {
        let digit = char::from_digit(u32::from(nibble), 16).unwrap_or('0');
        [digit as u8, digit.to_ascii_uppercase() as u8]
    };
    (both(byte >> 4), both(byte & 15))
}

fn match_hex(bytes: &[u8], text: &[u8]) -> Match {
    let mut digits = text.iter();
    for byte in bytes {
        let (high, low) = hex_digits(*byte);
        for allowed in [high, low] {
            match digits.next() {
                None => return Match::Partial,
                Some(digit) if allowed.contains(digit) => {}
                Some(_) => return Match::None,
            }
        }
    }
    Match::Full(bytes.len() * 2)
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}
