//! Host patterns, used in egress policies and in the `allowed_hosts` of secrets.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The maximum length of a host name, in bytes (RFC 1035).
const MAX_NAME_BYTES: usize = 253;
/// The maximum length of one label of a host name, in bytes (RFC 1035).
const MAX_LABEL_BYTES: usize = 63;

/// A pattern for hosts: a host name (`api.example.com`), all subdomains of a name (`*.example.com`), or an IP
/// address (`192.0.2.1`, `[2001:db8::1]`). It may end with a port (`api.example.com:8443`). Without a port,
/// it matches all ports. Its text form is in lower case.
///
/// A match alone does not permit a connection. A pattern may name a private address, but connections to it
/// are rejected unless the operator allows that address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPattern {
    host: Host,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Host {
    Name(String),
    /// All subdomains of this name, but not the name itself.
    Subdomains(String),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

/// The error for a string that is not a host pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHostPattern {
    #[error(
        "must be a host, for example `api.example.com`, `*.example.com` or `api.example.com:8443`, \
         without scheme, path, user name or spaces; an international name must be in its `xn--` form"
    )]
    Form,
    #[error("the port must be a number from 1 to 65535")]
    Port,
    #[error(
        "a wildcard `*` must be the whole first label of a name with at least three labels, for example \
         `*.example.com`"
    )]
    Wildcard,
}

impl HostPattern {
    /// Returns true if the pattern matches a host and a port. `host` is a host name without a trailing dot,
    /// or an IP address. An IPv6 address may be enclosed in brackets, as URL parsers return it.
    pub fn matches(&self, host: &str, port: u16) -> bool {
        if self.port.is_some_and(|only| only != port) {
            return false;
        }
        let host = host.to_ascii_lowercase();
        match &self.host {
            Host::Name(name) => *name == host,
            Host::Subdomains(parent) => host
                .strip_suffix(parent.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|rest| !rest.is_empty()),
            Host::V4(address) => host.parse() == Ok(*address),
            Host::V6(address) => {
                let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                inner.unwrap_or(&host).parse() == Ok(*address)
            }
        }
    }
}

impl FromStr for HostPattern {
    type Err = InvalidHostPattern;

    fn from_str(text: &str) -> Result<Self, InvalidHostPattern> {
        if let Some(rest) = text.strip_prefix('[') {
            let (address, rest) = rest.split_once(']').ok_or(InvalidHostPattern::Form)?;
            let address = address.parse().map_err(|_| InvalidHostPattern::Form)?;
            let port = match rest.strip_prefix(':') {
                Some(digits) => Some(port(digits)?),
                None if rest.is_empty() => None,
                None => return Err(InvalidHostPattern::Form),
            };
            return Ok(Self { host: Host::V6(address), port });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, digits)) => (host, Some(port(digits)?)),
            None => (text, None),
        };
        Ok(Self { host: host_of(&host.to_ascii_lowercase())?, port })
    }
}

fn port(digits: &str) -> Result<u16, InvalidHostPattern> {
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| is_plain).ok_or(InvalidHostPattern::Port)
}

fn host_of(text: &str) -> Result<Host, InvalidHostPattern> {
    if let Some(parent) = text.strip_prefix("*.") {
        if parent.contains('*') || !parent.contains('.') {
            return Err(InvalidHostPattern::Wildcard);
        }
        return match name(parent)? {
            Host::Name(parent) => Ok(Host::Subdomains(parent)),
            _ => Err(InvalidHostPattern::Wildcard),
        };
    }
    if text.contains('*') {
        return Err(InvalidHostPattern::Wildcard);
    }
    name(text)
}

fn name(text: &str) -> Result<Host, InvalidHostPattern> {
    let is_label = |label: &str| {
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() > MAX_NAME_BYTES || !text.split('.').all(is_label) {
        return Err(InvalidHostPattern::Form);
    }
    // URL parsers treat a host whose last label is a number as an IPv4 address. Only the dotted decimal form
    // is accepted here, because `0x7f.1` and `2130706433` are disguised forms of 127.0.0.1.
    let last = text.rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    if hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(Host::V4).map_err(|_| InvalidHostPattern::Form);
    }
    Ok(Host::Name(text.to_owned()))
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => f.write_str(name)?,
            Host::Subdomains(parent) => write!(f, "*.{parent}")?,
            Host::V4(address) => write!(f, "{address}")?,
            Host::V6(address) => write!(f, "[{address}]")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, host: &str, port: u16) -> bool {
        pattern.parse::<HostPattern>().unwrap().matches(host, port)
    }

    #[test]
    fn a_pattern_is_normalised() {
        for (input, normalised) in [
            ("API.Example.com", "api.example.com"),
            ("*.example.com:8443", "*.example.com:8443"),
            ("localhost", "localhost"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[2001:DB8::0:1]:443", "[2001:db8::1]:443"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(input.parse::<HostPattern>().unwrap().to_string(), normalised);
        }
    }

    #[test]
    fn an_invalid_host_is_rejected() {
        use InvalidHostPattern::{Form, Port, Wildcard};
        for (wrong, why) in [
            ("", Form),
            ("example.com.", Form),
            ("example.com/path", Form),
            ("user@example.com", Form),
            (" example.com", Form),
            ("bücher.example", Form),
            ("-a.example", Form),
            ("2130706433", Form),
            ("0x7f.1", Form),
            ("127.1", Form),
            ("1.2.3.0x4", Form),
            ("[::1", Form),
            ("[::1]x", Form),
            ("[fe80::1%eth0]", Form),
            ("https://example.com", Port),
            ("::1", Port),
            ("example.com:", Port),
            ("example.com:0", Port),
            ("example.com:080", Port),
            ("example.com:65536", Port),
            ("example.com:+80", Port),
            ("*", Wildcard),
            ("*.com", Wildcard),
            ("a.*.example.com", Wildcard),
            ("*a.example.com", Wildcard),
            ("*.*.example.com", Wildcard),
            ("*.127.0.0.1", Wildcard),
        ] {
            assert_eq!(wrong.parse::<HostPattern>(), Err(why), "{wrong:?}");
        }
    }

    #[test]
    fn a_pattern_matches_only_its_hosts() {
        assert!(matches("api.example.com", "API.example.com", 443));
        assert!(!matches("api.example.com", "xapi.example.com", 443));
        assert!(!matches("api.example.com", "api.example.com.evil.test", 443));
        assert!(matches("*.example.com", "a.b.example.com", 8080));
        assert!(!matches("*.example.com", "example.com", 443));
        assert!(!matches("*.example.com", ".example.com", 443));
        assert!(!matches("*.example.com", "evilexample.com", 443));
        assert!(matches("example.com:8443", "example.com", 8443));
        assert!(!matches("example.com:8443", "example.com", 443));
        assert!(matches("127.0.0.1", "127.0.0.1", 80));
        assert!(!matches("127.0.0.1", "127.0.0.1.example.com", 80));
        assert!(matches("[::1]", "[0:0::1]", 80));
        assert!(matches("[::1]", "::1", 80));
    }

    proptest! {
        #[test]
        fn parsing_any_text_does_not_panic_and_patterns_round_trip(text in "(\\*\\.)?[a-zA-Z0-9.:\\[\\]*_-]{0,40}|\\PC{0,20}") {
            if let Ok(pattern) = text.parse::<HostPattern>() {
                prop_assert_eq!(pattern.to_string().parse::<HostPattern>(), Ok(pattern));
            }
        }
    }
}
