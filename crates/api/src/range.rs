//! The `Range` header (RFC 9110, section 14): one range of bytes; anything else gets the whole.

use http::HeaderMap;
use http::header::{IF_RANGE, RANGE};

/// What part of a file is asked for; `last` is within it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Whole,
    Part { first: u64, last: u64 },
    Beyond,
}

/// Reads the header of a request for a file of `size` bytes.
pub(crate) fn asked(headers: &HeaderMap, etag: &str, size: u64) -> Asked {
    // A range of a file that has changed since would not fit to what the client has.
    let is_same = headers.get(IF_RANGE).is_none_or(|seen| seen == etag);
    let text = headers.get(RANGE).and_then(|range| range.to_str().ok());
    let range =
        text.and_then(|text| text.split_once('=')).filter(|(unit, _)| unit.eq_ignore_ascii_case("bytes"));
    match range.filter(|_| is_same).and_then(|(_, range)| range.split_once('-')) {
        None => Asked::Whole,
        Some(("", suffix)) => match number(suffix) {
            Some(0) => Asked::Beyond,
            Some(_) if size == 0 => Asked::Beyond,
            Some(count) => Asked::Part { first: size.saturating_sub(count), last: size - 1 },
            None => Asked::Whole,
        },
        Some((first, last)) => {
            let Some(first) = number(first) else { return Asked::Whole };
            let last = if last.is_empty() { Some(u64::MAX) } else { number(last) };
            match last {
                None => Asked::Whole,
                Some(last) if last < first => Asked::Whole,
                Some(_) if first >= size => Asked::Beyond,
                Some(last) => Asked::Part { first, last: last.min(size - 1) },
            }
        }
    }
}

/// A number of digits alone; one too large for any file counts as the largest.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(range: &str, size: u64) -> Asked {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, range.parse().unwrap());
        asked(&headers, "\"tag\"", size)
    }

    #[test]
    fn one_range_is_understood_in_all_its_forms() {
        assert_eq!(of("bytes=0-3", 10), Asked::Part { first: 0, last: 3 });
        assert_eq!(of("bytes=4-", 10), Asked::Part { first: 4, last: 9 });
        assert_eq!(of("bytes=-3", 10), Asked::Part { first: 7, last: 9 });
        assert_eq!(of("bytes=-30", 10), Asked::Part { first: 0, last: 9 });
        assert_eq!(of("bytes=8-30", 10), Asked::Part { first: 8, last: 9 });
        assert_eq!(of("Bytes=8-99999999999999999999", 10), Asked::Part { first: 8, last: 9 });
    }

    #[test]
    fn what_lies_beyond_is_said_so_and_what_is_odd_gets_the_whole() {
        assert_eq!(of("bytes=10-", 10), Asked::Beyond);
        assert_eq!(of("bytes=-0", 10), Asked::Beyond);
        assert_eq!(of("bytes=0-", 0), Asked::Beyond);
        assert_eq!(of("bytes=99999999999999999999-", 10), Asked::Beyond);
        for odd in ["bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=0-1,4-5", "bytes=-", "bytes=+1-2", "bytes"]
        {
            assert_eq!(of(odd, 10), Asked::Whole, "{odd}");
        }
    }

    #[test]
    fn a_changed_file_is_sent_whole() {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, "bytes=0-3".parse().unwrap());
        headers.insert(IF_RANGE, "\"old\"".parse().unwrap());
        assert_eq!(asked(&headers, "\"tag\"", 10), Asked::Whole);
    }
}
