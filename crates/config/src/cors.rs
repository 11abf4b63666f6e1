//! The web origins from which browsers may call the API (CORS).

use crate::Error;
use crate::setting;
use crate::source::{Sourced, Sources};

/// The maximum number of configured origins. A longer list is rejected, because the origin of each browser
/// request is compared with every entry.
const MAX_ORIGINS: usize = 256;

/// The web origins from which browsers may call the API (CORS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigins {
    /// Only these origins are allowed, in the form that browsers send. An empty list allows none.
    List(Vec<String>),
    /// Every origin is allowed.
    Any,
}

pub(crate) fn load(sources: &Sources<'_>) -> Result<CorsOrigins, Error> {
    let items = sources.list(&setting::CORS_ORIGINS);
    if let Some(excess) = items.get(MAX_ORIGINS) {
        return Err(excess.invalid(format!("at most {MAX_ORIGINS} origins are allowed; remove some")));
    }
    match items.as_slice() {
        [single] if single.value == "*" => Ok(CorsOrigins::Any),
        items => items.iter().map(origin).collect::<Result<_, _>>().map(CorsOrigins::List),
    }
}

/// Parses an origin. The value must be exactly what a browser sends, because origins are compared byte by
/// byte.
fn origin(raw: &Sourced<String>) -> Result<String, Error> {
    let expected = "an origin such as https://app.example.com or http://localhost:3000, in lower case, without a path \
                    or a trailing `/`; or `*` alone for all origins";
    let rest = ["https://", "http://"].iter().find_map(|scheme| raw.value.strip_prefix(scheme));
    let (host, port) = match rest.and_then(|rest| rest.rsplit_once(':')) {
        // A colon inside brackets belongs to an IPv6 address and does not separate a port.
        Some((host, port)) if !port.contains(']') => (Some(host), Some(port)),
        _ => (rest, None),
    };
    let is_host = |host: &str| {
        let name = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        !name.is_empty()
            && name.bytes().all(|byte| {
                byte.is_ascii_lowercase()
                    || byte.is_ascii_digit()
                    || matches!(byte, b'-' | b'.' | b'_')
                    || (byte == b':' && name.len() < host.len())
            })
    };
    let is_default = |port: &str| {
        (raw.value.starts_with("https:") && port == "443") || (raw.value.starts_with("http:") && port == "80")
    };
    if port.is_some_and(is_default) {
        return Err(raw.invalid(format!(
            "`{}` contains the default port, which browsers omit; remove the port",
            raw.value
        )));
    }
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|number| number.to_string() == port));
    if host.is_some_and(is_host) && is_port {
        return Ok(raw.value.clone());
    }
    Err(raw.unexpected(expected))
}
