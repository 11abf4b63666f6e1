//! Parses the entity tags in the request headers `If-Match` and `If-None-Match` (RFC 9110, section 8.8.3).

use herm_types::file::EntityTags;
use http::{HeaderMap, HeaderName};

/// The entity tags in an `If-Match` or `If-None-Match` header. `strong` returns the tags that can match in a strong
/// comparison, and `weak` those that can match in a weak comparison.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tags {
    Any,
    /// The listed tags. Each is a pair: a flag that is true if the tag is weak, and the tag without its quotes.
    OneOf(Vec<(bool, String)>),
}

impl Tags {
    /// Returns the tags for a strong comparison, in which weak tags never match. Writes use it, because their
    /// preconditions require that the client has seen exactly the current bytes of the file.
    pub(super) fn strong(self) -> EntityTags {
        self.filter(|is_weak| !is_weak)
    }

    /// Returns the tags for a weak comparison, in which weak tags match too. Reads use it, because a proxy may have
    /// turned a strong tag from the server into a weak tag.
    pub(super) fn weak(self) -> EntityTags {
        self.filter(|_| true)
    }

    fn filter(self, predicate: impl Fn(bool) -> bool) -> EntityTags {
        match self {
            Self::Any => EntityTags::Any,
            Self::OneOf(tags) => {
                let tags = tags.into_iter().filter(|(is_weak, _)| predicate(*is_weak));
                EntityTags::OneOf(tags.map(|(_, tag)| tag).collect())
            }
        }
    }
}

/// Encloses an entity tag in double quotes, the form in which HTTP headers contain it.
pub(super) fn quoted(tag: &str) -> String {
    format!("\"{tag}\"")
}

/// Reads a request header that lists entity tags. Returns `None` if the header is malformed, and `Some(None)` if it is
/// absent.
pub(super) fn read(headers: &HeaderMap, name: &HeaderName) -> Option<Option<Tags>> {
    let mut lines = headers.get_all(name).iter().peekable();
    if lines.peek().is_none() {
        return Some(None);
    }
    let mut tags = Vec::new();
    for line in lines {
        let line = line.to_str().ok()?.trim();
        if line == "*" {
            return Some(Some(Tags::Any));
        }
        parse_line(line, &mut tags)?;
    }
    (!tags.is_empty()).then_some(Some(Tags::OneOf(tags)))
}

fn parse_line(line: &str, tags: &mut Vec<(bool, String)>) -> Option<()> {
    let mut rest = line;
    loop {
        let (is_weak, opened) = match rest.strip_prefix("W/") {
            Some(opened) => (true, opened),
            None => (false, rest),
        };
        let (tag, after) = opened.strip_prefix('"')?.split_once('"')?;
        tags.push((is_weak, tag.to_owned()));
        rest = after.trim_start();
        if rest.is_empty() {
            return Some(());
        }
        rest = rest.strip_prefix(',')?.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use http::header::IF_MATCH;

    use super::*;

    fn read_lines(lines: &[&'static str]) -> Option<Option<Tags>> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(IF_MATCH, http::HeaderValue::from_static(line));
        }
        read(&headers, &IF_MATCH)
    }

    #[test]
    fn entity_tags_are_parsed_in_every_form() {
        let tags = |tags: &[(bool, &str)]| {
            Some(Some(Tags::OneOf(tags.iter().map(|(is_weak, tag)| (*is_weak, (*tag).to_owned())).collect())))
        };
        assert_eq!(read_lines(&[]), Some(None));
        assert_eq!(read_lines(&[" * "]), Some(Some(Tags::Any)));
        assert_eq!(read_lines(&["\"a\""]), tags(&[(false, "a")]));
        assert_eq!(
            read_lines(&["\"a,b\" , W/\"c\"", "\"\""]),
            tags(&[(false, "a,b"), (true, "c"), (false, "")])
        );
        for invalid in ["", "a", "\"a", "\"a\" \"b\"", "\"a\",", "w/\"a\"", "\"a\", *"] {
            assert_eq!(read_lines(&[invalid]), None, "{invalid}");
        }
    }

    #[test]
    fn a_strong_comparison_ignores_weak_tags() {
        let tags = || read_lines(&["W/\"a\", \"b\""]).unwrap().unwrap();
        assert_eq!(tags().strong(), EntityTags::OneOf(vec!["b".to_owned()]));
        assert_eq!(tags().weak(), EntityTags::OneOf(vec!["a".to_owned(), "b".to_owned()]));
    }
}
