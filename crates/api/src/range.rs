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
    let text =
        headers.get(RANGE).and_then(|range| range.to_str().ok()).and_then(|text| text.strip_prefix("bytes="));
    match text.filter(|_| is_same).and_then(|text| text.split_once('-')) {
        None => Asked::Whole,
        Some(("", suffix)) => match suffix.parse::<u64>() {
            Ok(0) => Asked::Beyond,
            Ok(_) if size == 0 => Asked::Beyond,
            Ok(count) => Asked::Part { first: size.saturating_sub(count), last: size - 1 },
            Err(_) => Asked::Whole,
        },
        Some((first, last)) => {
            let Ok(first) = first.parse::<u64>() else { return Asked::Whole };
            let last = if last.is_empty() { Ok(u64::MAX) } else { last.parse::<u64>() };
            match last {
                Err(_) => Asked::Whole,
                Ok(last) if last < first => Asked::Whole,
                Ok(_) if first >= size => Asked::Beyond,
                Ok(last) => Asked::Part { first, last: last.min(size - 1) },
            }
        }
    }
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
    }

    #[test]
    fn what_lies_beyond_is_said_so_and_what_is_odd_gets_the_whole() {
        assert_eq!(of("bytes=10-", 10), Asked::Beyond);
        assert_eq!(of("bytes=-0", 10), Asked::Beyond);
        assert_eq!(of("bytes=0-", 0), Asked::Beyond);
        for odd in
            ["bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=0-1,4-5", "bytes=-", "bytes=99999999999999999999-"]
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
