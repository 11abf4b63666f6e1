//! Decodes the backslash escapes of `$'…'`, `echo` and `printf`.

/// Replaces backslash escapes with the characters that they stand for, for example `\n`, `\x72`, `\162`,
/// `\0162` and `\u0072`.
pub(super) fn unescape(text: &str) -> String {
    let mut chars = text.chars().peekable();
    let mut out = String::with_capacity(text.len());
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let Some(kind) = chars.next() else {
            out.push('\\');
            break;
        };
        let mut digits = |max_digits: usize, radix: u32, start: u32| {
            let mut value = start;
            for _ in 0..max_digits {
                let Some(digit) = chars.peek().and_then(|c| c.to_digit(radix)) else { break };
                value = value * radix + digit;
                chars.next();
            }
            char::from_u32(value)
        };
        let replaced = match kind {
            'n' => Some('\n'),
            't' => Some('\t'),
            'r' => Some('\r'),
            'a' | 'b' | 'e' | 'E' | 'f' | 'v' => Some(' '),
            '\\' | '\'' | '"' | '?' => Some(kind),
            'x' => digits(2, 16, 0),
            'u' => digits(4, 16, 0),
            'U' => digits(6, 16, 0),
            '0' => digits(3, 8, 0),
            '1'..='7' => digits(2, 8, kind.to_digit(8).unwrap_or_default()),
            _ => None,
        };
        match replaced {
            Some(c) => out.push(c),
            None => out.extend(['\\', kind]),
        }
    }
    out
}

/// Returns true if the text contains numeric escapes, for example `\x72` or `\162`.
pub(super) fn has_numeric_escapes(text: &str) -> bool {
    let escape = |pair: &[u8]| matches!(pair, [b'\\', b'x' | b'u' | b'U' | b'0'..=b'7']);
    text.as_bytes().windows(2).any(escape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_escapes_are_decoded() {
        assert_eq!(unescape(r"\x72\155 \055rf\u0020\057\n"), "rm -rf /\n");
        assert_eq!(unescape(r"\0162m"), "rm");
        assert_eq!(unescape(r"a\qb\"), r"a\qb\");
        assert!(has_numeric_escapes(r"\x72") && !has_numeric_escapes(r"a\nb"));
    }
}
