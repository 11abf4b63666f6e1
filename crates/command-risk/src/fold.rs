//! Replaces confusable characters with the ASCII characters that they look like.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Letters of other scripts that look like Latin letters, and characters that look like a dash, a slash, `*`
/// or `~`. Each is paired with the ASCII character that it looks like.
const CONFUSABLES: &[(char, char)] = &[
    ('а', 'a'),
    ('е', 'e'),
    ('о', 'o'),
    ('р', 'p'),
    ('с', 'c'),
    ('у', 'y'),
    ('х', 'x'),
    ('ѕ', 's'),
    ('і', 'i'),
    ('ј', 'j'),
    ('һ', 'h'),
    ('ԁ', 'd'),
    ('ԛ', 'q'),
    ('ԝ', 'w'),
    ('к', 'k'),
    ('м', 'm'),
    ('т', 't'),
    ('в', 'b'),
    ('г', 'r'),
    ('п', 'n'),
    ('ѵ', 'v'),
    ('ӏ', 'l'),
    ('ƅ', 'b'),
    ('ɡ', 'g'),
    ('ο', 'o'),
    ('α', 'a'),
    ('ρ', 'p'),
    ('ν', 'v'),
    ('υ', 'u'),
    ('ι', 'i'),
    ('κ', 'k'),
    ('τ', 't'),
    ('χ', 'x'),
    ('γ', 'y'),
    ('η', 'n'),
    ('ϲ', 'c'),
    ('ϳ', 'j'),
    ('А', 'A'),
    ('В', 'B'),
    ('Е', 'E'),
    ('К', 'K'),
    ('М', 'M'),
    ('Н', 'H'),
    ('О', 'O'),
    ('Р', 'P'),
    ('С', 'C'),
    ('Т', 'T'),
    ('Х', 'X'),
    ('Α', 'A'),
    ('Β', 'B'),
    ('Ε', 'E'),
    ('Η', 'H'),
    ('Ι', 'I'),
    ('Κ', 'K'),
    ('Μ', 'M'),
    ('Ν', 'N'),
    ('Ο', 'O'),
    ('Ρ', 'P'),
    ('Τ', 'T'),
    ('Χ', 'X'),
    ('ı', 'i'),
    ('ɩ', 'i'),
    ('ʀ', 'r'),
    ('ɾ', 'r'),
    ('ꭇ', 'r'),
    ('ᴍ', 'm'),
    ('ɴ', 'n'),
    ('ᴄ', 'c'),
    ('ᴏ', 'o'),
    ('ᴜ', 'u'),
    ('ᴠ', 'v'),
    ('ᴡ', 'w'),
    ('ᴢ', 'z'),
    ('ꜱ', 's'),
    ('‐', '-'),
    ('‑', '-'),
    ('‒', '-'),
    ('–', '-'),
    ('—', '-'),
    ('―', '-'),
    ('−', '-'),
    ('⁄', '/'),
    ('∕', '/'),
    ('⧸', '/'),
    ('∗', '*'),
    ('∼', '~'),
];

/// Replaces each confusable character of the command with the ASCII character that it looks like, and removes
/// invisible characters. Returns `None` if this changes nothing.
pub(super) fn fold(command: &str) -> Option<String> {
    if command.chars().all(|c| c == '\t' || c == '\n' || (c.is_ascii() && !c.is_ascii_control())) {
        return None;
    }
    let mut folded = String::with_capacity(command.len());
    for c in command.chars() {
        if matches!(c, '\t' | '\n') || (c.is_ascii() && !c.is_ascii_control()) {
            folded.push(c);
        } else if !is_invisible(c) && !c.is_control() && !is_combining_mark(c) {
            let decomposed: String =
                std::iter::once(c).nfkd().filter(|c| !is_combining_mark(*c)).map(unconfuse).collect();
            // Characters that look like quotes or semicolons are not replaced. A shell treats them as plain
            // text, so replacing them would turn text into commands.
            if decomposed.chars().all(is_inert) { folded.push_str(&decomposed) } else { folded.push(c) }
        }
    }
    (folded != command).then_some(folded)
}

/// Returns true if a shell never treats this character as the end of a word or a command.
fn is_inert(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_./*~?=+:,@%".contains(c)
}

fn unconfuse(c: char) -> char {
    CONFUSABLES.iter().find_map(|(from, to)| (*from == c).then_some(*to)).unwrap_or(c)
}

/// Returns true if a character cannot be seen in a text: it has no width, is a blank that is not a space, or changes the
/// direction of the text.
pub fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{e0000}'..='\u{e01ef}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confusable_letters_are_replaced() {
        assert_eq!(fold("rｍ －ｒｆ ／").as_deref(), Some("rm -rf /"));
        assert_eq!(fold("r\u{200b}m\u{feff} –rf /").as_deref(), Some("rm -rf /"));
        assert_eq!(fold("ѕuԁо r̶m̶").as_deref(), Some("sudo rm"));
        assert_eq!(fold("rm\r\n").as_deref(), Some("rm\n"));
        assert_eq!(fold("echo a\tb\n"), None);
        assert_eq!(fold("echo 日本"), None);
    }
}
