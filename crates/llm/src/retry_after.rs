//! How long a provider asks to wait: RFC 9110, section 10.2.3.

use std::time::Duration;

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

use crate::limits;

/// The wait asked for, at most [`limits::RETRY_AFTER`]. A date is measured from the answer's own `Date`, so that
/// a clock that is wrong here does not matter; without one it says nothing.
pub(crate) fn find(headers: &HeaderMap) -> Option<Duration> {
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

/// Seconds; some providers write decimals.
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
        find(&headers.collect())
    }

    #[test]
    fn seconds_are_read() {
        assert_eq!(wait(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(wait(&[("retry-after", "0.5")]), Some(Duration::from_millis(500)));
        assert_eq!(wait(&[("retry-after-ms", "250")]), Some(Duration::from_millis(250)));
        assert_eq!(wait(&[("retry-after", "99999999999999999999999")]), Some(limits::RETRY_AFTER));
    }

    #[test]
    fn a_date_is_measured_from_the_answers_own_date() {
        let until = ("retry-after", "Wed, 21 Oct 2015 07:28:30 GMT");
        let before = ("date", "Wed, 21 Oct 2015 07:28:00 GMT");
        let after = ("date", "Wed, 21 Oct 2015 07:29:00 GMT");
        assert_eq!(wait(&[until, before]), Some(Duration::from_secs(30)));
        assert_eq!(wait(&[until, after]), Some(Duration::ZERO));
        assert_eq!(wait(&[until]), None);
    }

    #[test]
    fn anything_else_says_nothing() {
        assert_eq!(wait(&[]), None);
        for nonsense in ["soon", "-1", "", "nan", "inf"] {
            assert_eq!(wait(&[("retry-after", nonsense)]), None);
        }
    }
}
