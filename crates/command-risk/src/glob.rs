//! Matching of file name patterns (globs).

/// Returns true if the text contains `*`, `?` or `[`, which have a special meaning in patterns.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Returns true if the pattern matches the whole text. Patterns can contain `*`, `?` and `[…]`. The running
/// time is at most proportional to the product of the two lengths.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // For backtracking: the position in the pattern after the last `*`, and the position in the text at which
    // the rest of the pattern was last tried.
    let mut star: Option<(usize, usize)> = None;
    while let Some(c) = text.get(t) {
        if pattern.get(p) == Some(&'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if let Some(next) = match_one(&pattern, p, *c) {
            p = next;
            t += 1;
        } else if let Some((after, tried)) = star {
            star = Some((after, tried + 1));
            (p, t) = (after, tried + 1);
        } else {
            return false;
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|c| *c == '*'))
}

/// If the pattern element at position `p` matches the character, returns the position of the next element.
/// Otherwise returns `None`.
fn match_one(pattern: &[char], p: usize, c: char) -> Option<usize> {
    match pattern.get(p)? {
        '?' => Some(p + 1),
        '[' => {
            let Some(length) = pattern.get(p + 2..).unwrap_or_default().iter().position(|c| *c == ']') else {
                return (c == '[').then_some(p + 1);
            };
            let end = p + 2 + length;
            let (inside, negated) = match pattern.get(p + 1..end)? {
                ['!' | '^', rest @ ..] => (rest, true),
                inside => (inside, false),
            };
            (in_set(inside, c) != negated).then_some(end + 1)
        }
        literal => (*literal == c).then_some(p + 1),
    }
}

fn in_set(set: &[char], c: char) -> bool {
    let range = |w: &[char]| matches!(w, [from, '-', to] if (*from..=*to).contains(&c));
    set.contains(&c) || set.windows(3).any(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_texts() {
        for (pattern, text) in [
            ("r?", "rm"),
            ("r*m", "rm"),
            ("[q-s]m", "rm"),
            ("[!a]m", "rm"),
            ("*", ""),
            ("a*b*c", "aXbYbc"),
            ("[", "["),
            ("w*space", "workspace"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("r?", "r"), ("r", "rm"), ("[a-b]m", "rm"), ("*x", "rm"), ("", "a")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}
