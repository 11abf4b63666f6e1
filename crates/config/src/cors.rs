//! Origins of web pages whose scripts may call the API.

use crate::Error;
use crate::setting;
use crate::source::{Found, Sources};

/// Most entries of the list; each is compared at every request of a browser.
const MAX_ORIGINS: usize = 256;

/// Origins of web pages whose scripts may call the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigins {
    /// These, as browsers write them; none if it is empty.
    List(Vec<String>),
    /// Every page's.
    Any,
}

pub(crate) fn load(sources: &Sources<'_>) -> Result<CorsOrigins, Error> {
    let items = sources.list(&setting::CORS_ORIGINS);
    if let Some(beyond) = items.get(MAX_ORIGINS) {
        return Err(beyond.invalid(format!("at most {MAX_ORIGINS} origins")));
    }
    match items.as_slice() {
        [one] if one.value == "*" => Ok(CorsOrigins::Any),
        items => items.iter().map(origin).collect::<Result<_, _>>().map(CorsOrigins::List),
    }
}

/// An origin exactly as a browser sends it, since they are compared letter by letter.
fn origin(found: &Found<String>) -> Result<String, Error> {
    let expected = "an origin such as https://app.example.com or http://localhost:3000, in lower case, without a path \
                    or a last `/`; or `*` alone for every origin";
    let rest = ["https://", "http://"].iter().find_map(|scheme| found.value.strip_prefix(scheme));
    let (host, port) = match rest.and_then(|rest| rest.rsplit_once(':')) {
        // The colons of an IPv6 address stand within brackets.
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
        (found.value.starts_with("https:") && port == "443")
            || (found.value.starts_with("http:") && port == "80")
    };
    if port.is_some_and(is_default) {
        return Err(
            found.invalid(format!("`{}`: browsers leave the scheme's own port out; do so too", found.value))
        );
    }
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|number| number.to_string() == port));
    if host.is_some_and(is_host) && is_port {
        return Ok(found.value.clone());
    }
    Err(found.not(expected))
}
