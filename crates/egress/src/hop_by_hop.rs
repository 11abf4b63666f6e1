//! Removes hop-by-hop header fields, which a proxy must not forward (RFC 9110, section 7.6.1).

use http::HeaderMap;
use http::header::{
    CONNECTION, EXPECT, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};

/// Hop-by-hop header fields that are removed even if the `Connection` field does not list them.
const HOP_BY_HOP: [HeaderName; 10] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("http2-settings"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// Returns true if the comma-separated list in the header field `name` contains `word`, ignoring case.
fn contains_token(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(word))
}

/// Returns true if these header fields request or accept an upgrade to WebSocket. Upgrades to other protocols are not
/// forwarded, because the proxy could not mask secret values in those protocols.
pub(crate) fn is_websocket_upgrade(headers: &HeaderMap) -> bool {
    contains_token(headers, CONNECTION, "upgrade") && contains_token(headers, UPGRADE, "websocket")
}

/// Removes the hop-by-hop header fields of a request. Also removes `Host`, which is set later from the target. Fields
/// that ask for trailers or for an upgrade to WebSocket are preserved.
pub(crate) fn strip_request(headers: &mut HeaderMap) {
    let wants_trailers = contains_token(headers, TE, "trailers");
    let is_upgrade = is_websocket_upgrade(headers);
    strip(headers);
    headers.remove(HOST);
    // `Expect: 100-continue` is not forwarded, because hyper itself sends `100 Continue` to the program as soon as the
    // proxy reads the body.
    if headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        headers.remove(EXPECT);
    }
    if is_upgrade {
        headers.insert(UPGRADE, WEBSOCKET);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

/// Removes the hop-by-hop header fields of a response. If `is_upgrade`, the fields for the upgrade to WebSocket are
/// preserved.
pub(crate) fn strip_response(headers: &mut HeaderMap, is_upgrade: bool) {
    strip(headers);
    if is_upgrade {
        headers.insert(UPGRADE, WEBSOCKET);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| (name.parse().unwrap(), value.parse().unwrap());
        let fields: Vec<(HeaderName, HeaderValue)> = fields.iter().map(field).collect();
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn hop_by_hop_fields_are_removed() {
        let mut headers = of(&[
            ("connection", "close, x-mine"),
            ("connection", "X-Other,bad name,"),
            ("x-mine", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic dXNlcjp4"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("host", "elsewhere"),
            ("expect", "100-Continue"),
            ("accept", "*/*"),
            ("authorization", "Bearer x"),
        ]);
        strip_request(&mut headers);
        assert_eq!(headers, of(&[("accept", "*/*"), ("authorization", "Bearer x")]));
    }

    #[test]
    fn requests_for_trailers_and_websockets_are_preserved() {
        let mut headers = of(&[("connection", "TE"), ("te", "gzip, Trailers")]);
        strip_request(&mut headers);
        assert_eq!(headers, of(&[("te", "trailers"), ("connection", "te")]));
        let mut headers = of(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket"), ("x", "1")]);
        strip_request(&mut headers);
        assert_eq!(headers, of(&[("x", "1"), ("upgrade", "websocket"), ("connection", "upgrade")]));
    }
}
