use std::sync::Arc;

use ::base64::Engine as _;
use ::base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::*;

const PLACEHOLDER: &str = "herm_secret_0123456789abcdef0123456789abcdef";

fn rules(value: &str) -> Arc<Rules> {
    Arc::new(Rules::new(Needle::all_forms(value, PLACEHOLDER)))
}

fn whole(rules: &Rules, text: &[u8]) -> Vec<u8> {
    rules.rewrite(text).map_or_else(|| text.to_vec(), |found| found.to_vec())
}

fn in_pieces(rules: &Arc<Rules>, pieces: &[&[u8]]) -> Vec<u8> {
    let mut rewriter = Rewriter::new(rules.clone());
    let mut out: Vec<u8> = pieces.iter().flat_map(|piece| rewriter.push(piece)).collect();
    out.extend(rewriter.finish());
    out
}

/// Percent-encodes the bytes for which `which` returns true, and all non-ASCII bytes.
fn percent(text: &str, which: impl Fn(usize, u8) -> bool) -> String {
    let encode = |(at, byte): (usize, u8)| {
        if which(at, byte) || !byte.is_ascii() {
            format!("%{byte:02X}")
        } else {
            char::from(byte).to_string()
        }
    };
    text.bytes().enumerate().map(encode).collect()
}

/// Returns the value in all encodings in which a host may send it. The base64 encodings are repeated with different
/// text around the value.
fn spellings(value: &str) -> Vec<String> {
    let mut all = vec![
        value.to_owned(),
        percent(value, |_, byte| !byte.is_ascii_alphanumeric()),
        percent(value, |_, _| true).to_lowercase(),
        percent(value, |at, byte| at % 2 == 0 || byte == b'%'),
        serde_like_json(value),
        value.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect(),
        value.bytes().map(|byte| format!("{byte:02x}")).collect(),
        value.bytes().map(|byte| format!("{byte:02X}")).collect(),
    ];
    for before in ["", "x", "xy", "user:"] {
        for after in ["", "z", "zz"] {
            let text = format!("{before}{value}{after}");
            all.extend([
                STANDARD.encode(&text),
                STANDARD_NO_PAD.encode(&text),
                URL_SAFE.encode(&text),
                URL_SAFE_NO_PAD.encode(&text),
                STANDARD.encode(&text).replace('/', "\\/").replace('+', "\\u002B"),
                STANDARD.encode(&text).replace('/', "%2F").replace('+', "%2b"),
            ]);
        }
    }
    all
}

fn serde_like_json(value: &str) -> String {
    let escape = |character: char| match character {
        '"' | '\\' | '/' => format!("\\{character}"),
        '\n' => "\\n".to_owned(),
        '\t' => "\\t".to_owned(),
        other if (other as u32) < 32 => format!("\\u{:04x}", other as u32),
        other => other.to_string(),
    };
    value.chars().map(escape).collect()
}

/// Returns true if the masked text still contains the value, raw or in base64.
fn has_trace(masked: &[u8], value: &str) -> bool {
    let text = String::from_utf8_lossy(masked).into_owned();
    let core = |before: usize| {
        let sextets = base64::exclusive_sextets(value.as_bytes(), before);
        String::from_utf8(base64::encode_sextets(&sextets)).unwrap()
    };
    let one_alphabet = text.replace('-', "+").replace('_', "/");
    text.contains(value) || (0..3).any(|before| one_alphabet.contains(&core(before)))
}

#[test]
fn a_value_is_masked_in_every_encoding_split_at_every_byte() {
    for value in
        ["sk-live-0123456789", "pass word+/%\"\\x", "schlüssel-mit-ß-🔑", ">>>???~~~>>>???", "at-its-end\\"]
    {
        let rules = rules(value);
        for form in spellings(value) {
            let text = format!("a {form} b");
            let masked = whole(&rules, text.as_bytes());
            assert_ne!(masked, text.as_bytes(), "{form}");
            assert!(!has_trace(&masked, value), "{form} became {}", String::from_utf8_lossy(&masked));
            assert!(masked.starts_with(b"a ") && masked.ends_with(b" b"), "{form}");
            for cut in 0..=text.len() {
                let (left, right) = text.as_bytes().split_at(cut);
                assert_eq!(in_pieces(&rules, &[left, right]), masked, "{form} cut at {cut}");
            }
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(in_pieces(&rules, &bytes), masked, "{form} byte by byte");
        }
    }
}

#[test]
fn the_replacement_is_the_placeholder_in_the_same_encoding() {
    let value = "sk-live-0123456789";
    let rules = rules(value);
    assert_eq!(whole(&rules, value.as_bytes()), PLACEHOLDER.as_bytes());
    for before in ["", "a", "ab", "user:"] {
        for after in ["", "x", "tail of it"] {
            let text = STANDARD.encode(format!("{before}{value}{after}"));
            let masked = whole(&rules, text.as_bytes());
            let decoded = String::from_utf8(STANDARD.decode(&masked).unwrap()).unwrap();
            assert!(decoded.starts_with(before) && decoded.ends_with(after), "{decoded}");
            assert!(decoded.contains(PLACEHOLDER), "{decoded}");
        }
    }
}

#[test]
fn base64_with_line_breaks_is_masked() {
    let value = "a value that is longer than the line of a certificate, by far: 0123456789";
    let rules = rules(value);
    let text = STANDARD.encode(format!("before it {value} and after it"));
    for line_break in ["\n", "\r\n", "\\n", "\\r\\n", "%0A"] {
        for width in [60, 64, 76] {
            let lines: Vec<&str> =
                text.as_bytes().chunks(width).map(|l| str::from_utf8(l).unwrap()).collect();
            let broken = lines.join(line_break);
            let masked = String::from_utf8(whole(&rules, broken.as_bytes())).unwrap();
            assert!(!has_trace(masked.replace(line_break, "").as_bytes(), value), "{masked}");
        }
    }
}

#[test]
fn the_longest_of_several_matches_is_replaced() {
    let mut needles = Needle::all_forms("password", "P1");
    needles.extend(Needle::all_forms("password-and-more", "P2"));
    let rules = Arc::new(Rules::new(needles));
    assert_eq!(whole(&rules, b"password, password-and-more, password-and"), b"P1, P2, P1-and");
    assert_eq!(in_pieces(&rules, &[b"password", b"-and-more"]), b"P2");
}

#[test]
fn only_a_possible_start_of_a_match_is_held_back() {
    let rules = rules("sk-live-0123456789");
    let mut rewriter = Rewriter::new(rules);
    assert_eq!(rewriter.push(b"data: {\"x\": 1}\n\n"), b"data: {\"x\": 1}\n\n");
    assert_eq!(rewriter.push(b"data: sk-li"), b"data: ");
    assert_eq!(rewriter.push(b"st\n\n"), b"sk-list\n\n");
    assert_eq!(rewriter.push(b"sk-live-012345678"), b"");
    assert_eq!(rewriter.push(b"!"), b"sk-live-012345678!");
}

proptest! {
    #[test]
    fn a_value_is_masked_in_chunks_of_any_size(
        value in "[ -~]{8,40}|\\PC{8,20}",
        before in any::<Vec<u8>>(),
        after in any::<Vec<u8>>(),
        form in any::<prop::sample::Index>(),
        size in 1_usize..40,
    ) {
        let rules = rules(&value);
        let forms = spellings(&value);
        let text = [&before, form.get(&forms).as_bytes(), &after].concat();
        let pieces: Vec<&[u8]> = text.chunks(size).collect();
        let masked = in_pieces(&rules, &pieces);
        prop_assert_eq!(&masked, &whole(&rules, &text));
        prop_assert!(!has_trace(&masked, &value));
    }

    #[test]
    fn data_without_values_is_unchanged(text in any::<Vec<u8>>(), size in 1_usize..40) {
        let rules = rules("a-value-that-does-not-occur");
        let pieces: Vec<&[u8]> = text.chunks(size).collect();
        prop_assert_eq!(in_pieces(&rules, &pieces), text);
    }
}
