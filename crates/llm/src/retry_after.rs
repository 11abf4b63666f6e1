//! Parses the `Retry-After` header: RFC 9110, section 10.2.3.

use std::time::Duration;

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

use crate::limits;

/// Returns the delay requested by the header `Retry-After` or, if that header is missing, by
/// `retry-after-ms`. The delay is at most [`limits::RETRY_AFTER`]. If `Retry-After` contains a date, the
/// delay is counted from the response's `Date` header, so that a wrong clock on this machine does not matter.
/// If there is no `Date` header, a date in `Retry-After` is ignored.
pub(crate) fn parse(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let wait = match text(RETRY_AFTER.as_str()) {
        Some(value) => match seconds(value) {
            Some(wait) => wait,
            None => {
                let until = httpdate::parse_http_date(value).ok()?;
                let now = httpdate::parse_http_date(text(DATE.as_str())?).ok()?;
                until.duration_since(now).unwrap_or(Duration::ZERO)
            }
        },
        None => Duration::from_millis(text("retry-after-ms")?.parse().ok()?),
    };
    Some(wait.min(limits::RETRY_AFTER))
}

/// Parses a number of seconds. Some providers send decimals.
fn seconds(value: &str) -> Option<Duration> {
    if !value.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let seconds: f64 = value.parse().ok()?;
    Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn wait(headers: &[(&'static str, &'static str)]) -> Option<Duration> {
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
        parse(&headers.collect())
    }

    #[test]
    fn seconds_are_parsed() {
        assert_eq!(wait(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(wait(&[("retry-after", "0.5")]), Some(Duration::from_millis(500)));
        assert_eq!(wait(&[("retry-after-ms", "250")]), Some(Duration::from_millis(250)));
        assert_eq!(wait(&[("retry-after", "99999999999999999999999")]), Some(limits::RETRY_AFTER));
    }

    #[test]
    fn a_date_is_compared_with_the_date_of_the_response() {
        let until = ("retry-after", "Wed, 21 Oct 2015 07:28:30 GMT");
        let before = ("date", "Wed, 21 Oct 2015 07:28:00 GMT");
        let after = ("date", "Wed, 21 Oct 2015 07:29:00 GMT");
        assert_eq!(wait(&[until, before]), Some(Duration::from_secs(30)));
        assert_eq!(wait(&[until, after]), Some(Duration::ZERO));
        assert_eq!(wait(&[until]), None);
    }

    #[test]
    fn an_invalid_value_is_ignored() {
        assert_eq!(wait(&[]), None);
        for invalid in ["soon", "-1", "", "nan", "inf"] {
            assert_eq!(wait(&[("retry-after", invalid)]), None);
        }
    }
}
