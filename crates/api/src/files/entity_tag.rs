//! Entity tags in headers (RFC 9110, section 8.8.3).

use herm_types::file::EntityTags;
use http::{HeaderMap, HeaderName};

/// The tags of a header, before it is decided how they are compared.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tags {
    Any,
    /// Whether it is weak, and the tag without its quotes.
    OneOf(Vec<(bool, String)>),
}

impl Tags {
    /// For a comparison in which a weak tag is equal to none: whoever changes a file must know all its bytes.
    pub(super) fn strong(self) -> EntityTags {
        self.keep(|is_weak| !is_weak)
    }

    /// For a comparison in which weak tags count like strong ones, as something on the way may have weakened them.
    pub(super) fn weak(self) -> EntityTags {
        self.keep(|_| true)
    }

    fn keep(self, wanted: impl Fn(bool) -> bool) -> EntityTags {
        match self {
            Self::Any => EntityTags::Any,
            Self::OneOf(tags) => {
                let kept = tags.into_iter().filter(|(is_weak, _)| wanted(*is_weak));
                EntityTags::OneOf(kept.map(|(_, tag)| tag).collect())
            }
        }
    }
}

/// The tag as headers have it.
pub(super) fn quoted(tag: &str) -> String {
    format!("\"{tag}\"")
}

/// Reads a header that lists tags. `None`: it is none; `Some(None)`: it is not there.
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

    fn of(lines: &[&'static str]) -> Option<Option<Tags>> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(IF_MATCH, http::HeaderValue::from_static(line));
        }
        read(&headers, &IF_MATCH)
    }

    #[test]
    fn tags_are_read_in_all_their_forms() {
        let tags = |tags: &[(bool, &str)]| {
            Some(Some(Tags::OneOf(tags.iter().map(|(is_weak, tag)| (*is_weak, (*tag).to_owned())).collect())))
        };
        assert_eq!(of(&[]), Some(None));
        assert_eq!(of(&[" * "]), Some(Some(Tags::Any)));
        assert_eq!(of(&["\"a\""]), tags(&[(false, "a")]));
        assert_eq!(of(&["\"a,b\" , W/\"c\"", "\"\""]), tags(&[(false, "a,b"), (true, "c"), (false, "")]));
        for odd in ["", "a", "\"a", "\"a\" \"b\"", "\"a\",", "w/\"a\"", "\"a\", *"] {
            assert_eq!(of(&[odd]), None, "{odd}");
        }
    }

    #[test]
    fn a_weak_tag_is_equal_to_none_where_it_matters() {
        let tags = || of(&["W/\"a\", \"b\""]).unwrap().unwrap();
        assert_eq!(tags().strong(), EntityTags::OneOf(vec!["b".to_owned()]));
        assert_eq!(tags().weak(), EntityTags::OneOf(vec!["a".to_owned(), "b".to_owned()]));
    }
}
