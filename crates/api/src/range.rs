//! The `Range` header (RFC 9110, section 14). Only a single byte range is supported. For any other value of the header,
//! the whole file is sent.

use http::HeaderMap;
use http::header::{IF_RANGE, RANGE};

/// The part of a file that a request selects. `first` and `last` are the offsets of the first and the last byte to
/// send. Both are within the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RequestedRange {
    Whole,
    Part {
        first: u64,
        last: u64,
    },
    /// The requested range begins after the last byte of the file, or is empty. The response is 416.
    Unsatisfiable,
}

/// Evaluates the `Range` and `If-Range` headers of a request for a file with the entity tag `etag` and `size` bytes.
pub(crate) fn requested_range(headers: &HeaderMap, etag: &str, size: u64) -> RequestedRange {
    // With `If-Range`, a client resumes a download: it appends the range to the part of the file that it already has.
    // If the file has changed since that part was downloaded, the old and the new part do not belong together, so the
    // whole file is sent.
    let is_same = headers.get(IF_RANGE).is_none_or(|value| value == etag);
    let text = headers.get(RANGE).and_then(|range| range.to_str().ok());
    let range =
        text.and_then(|text| text.split_once('=')).filter(|(unit, _)| unit.eq_ignore_ascii_case("bytes"));
    match range.filter(|_| is_same).and_then(|(_, range)| range.split_once('-')) {
        None => RequestedRange::Whole,
        Some(("", suffix)) => match number(suffix) {
            Some(0) => RequestedRange::Unsatisfiable,
            Some(_) if size == 0 => RequestedRange::Unsatisfiable,
            Some(count) => RequestedRange::Part { first: size.saturating_sub(count), last: size - 1 },
            None => RequestedRange::Whole,
        },
        Some((first, last)) => {
            let Some(first) = number(first) else { return RequestedRange::Whole };
            let last = if last.is_empty() { Some(u64::MAX) } else { number(last) };
            match last {
                None => RequestedRange::Whole,
                Some(last) if last < first => RequestedRange::Whole,
                Some(_) if first >= size => RequestedRange::Unsatisfiable,
                Some(last) => RequestedRange::Part { first, last: last.min(size - 1) },
            }
        }
    }
}

/// Parses a decimal number. Returns `None` if the text is empty or contains anything other than ASCII digits, and
/// `u64::MAX` if the number does not fit into a `u64`.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(range: &str, size: u64) -> RequestedRange {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, range.parse().unwrap());
        requested_range(&headers, "\"tag\"", size)
    }

    #[test]
    fn a_single_range_is_parsed_in_every_form() {
        assert_eq!(parse("bytes=0-3", 10), RequestedRange::Part { first: 0, last: 3 });
        assert_eq!(parse("bytes=4-", 10), RequestedRange::Part { first: 4, last: 9 });
        assert_eq!(parse("bytes=-3", 10), RequestedRange::Part { first: 7, last: 9 });
        assert_eq!(parse("bytes=-30", 10), RequestedRange::Part { first: 0, last: 9 });
        assert_eq!(parse("bytes=8-30", 10), RequestedRange::Part { first: 8, last: 9 });
        assert_eq!(parse("Bytes=8-99999999999999999999", 10), RequestedRange::Part { first: 8, last: 9 });
    }

    #[test]
    fn a_range_outside_the_file_is_unsatisfiable_and_an_invalid_one_is_ignored() {
        assert_eq!(parse("bytes=10-", 10), RequestedRange::Unsatisfiable);
        assert_eq!(parse("bytes=-0", 10), RequestedRange::Unsatisfiable);
        assert_eq!(parse("bytes=0-", 0), RequestedRange::Unsatisfiable);
        assert_eq!(parse("bytes=99999999999999999999-", 10), RequestedRange::Unsatisfiable);
        for range in
            ["bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=0-1,4-5", "bytes=-", "bytes=+1-2", "bytes"]
        {
            assert_eq!(parse(range, 10), RequestedRange::Whole, "{range}");
        }
    }

    #[test]
    fn a_changed_file_is_sent_whole() {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, "bytes=0-3".parse().unwrap());
        headers.insert(IF_RANGE, "\"old\"".parse().unwrap());
        assert_eq!(requested_range(&headers, "\"tag\"", 10), RequestedRange::Whole);
    }
}
