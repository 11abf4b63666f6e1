//! One text to be found, in one of the ways it may be written, and what replaces it.

use zeroize::Zeroizing;

use super::{Found, base64, written};

pub(crate) struct Needle {
    form: Form,
    replacement: Zeroizing<Vec<u8>>,
}

enum Form {
    /// Byte for byte.
    Literal(Zeroizing<Vec<u8>>),
    /// As it is, percent-encoded, escaped as in JSON, or any mixture of these.
    Written(Zeroizing<String>),
    /// Inside of a longer text in base64: the sextets that are the value's alone.
    Base64(Zeroizing<Vec<u8>>),
    /// Each byte as two digits of either case.
    Hex(Zeroizing<Vec<u8>>),
}

impl Needle {
    /// Finds a text byte for byte.
    pub(crate) fn literal(text: &str, replacement: Zeroizing<Vec<u8>>) -> Self {
        Self { form: Form::Literal(Zeroizing::new(text.as_bytes().to_vec())), replacement }
    }

    /// Finds a value in all the ways of writing that are undone here, each replaced by its placeholder written alike.
    pub(crate) fn all_forms(value: &str, placeholder: &str) -> Vec<Self> {
        let own = |bytes: &[u8]| Zeroizing::new(bytes.to_vec());
        let mut needles = vec![
            Self {
                form: Form::Written(Zeroizing::new(value.to_owned())),
                replacement: own(placeholder.as_bytes()),
            },
            Self { form: Form::Hex(own(value.as_bytes())), replacement: own(hex(placeholder).as_bytes()) },
        ];
        let filled = base64::fill(placeholder, value.len());
        needles.extend((0..3).map(|bytes_before| Self {
            form: Form::Base64(Zeroizing::new(base64::own_sextets(value.as_bytes(), bytes_before))),
            replacement: Zeroizing::new(base64::write(&base64::own_sextets(filled.as_bytes(), bytes_before))),
        }));
        needles
    }

    pub(super) fn replacement(&self) -> &[u8] {
        &self.replacement
    }

    /// The bytes with which it may begin.
    pub(super) fn beginnings(&self) -> Vec<u8> {
        match &self.form {
            Form::Literal(text) => text.first().copied().into_iter().collect(),
            Form::Written(value) => value.chars().next().map(written::beginnings).unwrap_or_default(),
            Form::Base64(sextets) => {
                sextets.first().map(|first| base64::beginnings(*first)).unwrap_or_default()
            }
            Form::Hex(bytes) => bytes.first().map(|byte| hex_digits(*byte).0.to_vec()).unwrap_or_default(),
        }
    }

    /// Whether it begins at the beginning of `text`, after which more may come unless this is the last.
    pub(super) fn find_at(&self, text: &[u8], is_last: bool) -> Found {
        match &self.form {
            Form::Literal(literal) => compare(text, literal, |left, right| left == right),
            Form::Written(value) => written::find_at(value, text, is_last),
            Form::Base64(sextets) => base64::find_at(sextets, text),
            Form::Hex(bytes) => find_hex(bytes, text),
        }
    }
}

/// Compares byte by byte, as far as both go.
pub(super) fn compare(text: &[u8], with: &[u8], is_same: impl Fn(u8, u8) -> bool) -> Found {
    if !text.iter().zip(with).all(|(left, right)| is_same(*left, *right)) {
        return Found::No;
    }
    if text.len() < with.len() { Found::Perhaps } else { Found::Yes(with.len()) }
}

/// The two digits of a byte, each in both cases.
fn hex_digits(byte: u8) -> ([u8; 2], [u8; 2]) {
    let both = |nibble: u8| {
        let digit = char::from_digit(u32::from(nibble), 16).unwrap_or('0');
        [digit as u8, digit.to_ascii_uppercase() as u8]
    };
    (both(byte >> 4), both(byte & 15))
}

fn find_hex(bytes: &[u8], text: &[u8]) -> Found {
    let mut digits = text.iter();
    for byte in bytes {
        let (high, low) = hex_digits(*byte);
        for allowed in [high, low] {
            match digits.next() {
                None => return Found::Perhaps,
                Some(digit) if allowed.contains(digit) => {}
                Some(_) => return Found::No,
            }
        }
    }
    Found::Yes(bytes.len() * 2)
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}
