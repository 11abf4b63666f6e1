//! Header fields that belong to one connection and not to what goes over it (RFC 9110, section 7.6.1).

use http::HeaderMap;
use http::header::{
    CONNECTION, EXPECT, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};

/// Fields of one connection, whether `Connection` names them or not.
const OF_ONE_CONNECTION: [HeaderName; 10] = [
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

/// Whether a field is a list that has this word, of any case.
fn lists(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(word))
}

/// Whether the connection is to speak the WebSocket protocol from here on. No other upgrade is passed on: what it
/// speaks could be neither decided about nor masked.
pub(crate) fn ask_for_websocket(headers: &HeaderMap) -> bool {
    lists(headers, CONNECTION, "upgrade") && lists(headers, UPGRADE, "websocket")
}

/// Leaves what is for the host. `Host` goes too: it is made anew from where the request really goes.
pub(crate) fn clean_request(headers: &mut HeaderMap) {
    let wants_trailers = lists(headers, TE, "trailers");
    let is_upgrade = ask_for_websocket(headers);
    clean(headers);
    headers.remove(HOST);
    // The program is told to go on as soon as its body is read.
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

pub(crate) fn clean_response(headers: &mut HeaderMap, is_upgrade: bool) {
    clean(headers);
    if is_upgrade {
        headers.insert(UPGRADE, WEBSOCKET);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

fn clean(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in named.iter().chain(&OF_ONE_CONNECTION) {
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
    fn what_belongs_to_one_connection_is_not_passed_on() {
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
        clean_request(&mut headers);
        assert_eq!(headers, of(&[("accept", "*/*"), ("authorization", "Bearer x")]));
    }

    #[test]
    fn trailers_and_websockets_are_asked_for_anew() {
        let mut headers = of(&[("connection", "TE"), ("te", "gzip, Trailers")]);
        clean_request(&mut headers);
        assert_eq!(headers, of(&[("te", "trailers"), ("connection", "te")]));
        let mut headers = of(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket"), ("x", "1")]);
        clean_request(&mut headers);
        assert_eq!(headers, of(&[("x", "1"), ("upgrade", "websocket"), ("connection", "upgrade")]));
    }
}
