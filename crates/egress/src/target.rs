//! The host and port that a program wants to reach. They are parsed only once, into a canonical form that is used for
//! the policy, DNS, records and requests alike.

use std::net::IpAddr;

use rustls::pki_types::ServerName;
use url::Host;

/// The maximum length of a host name, in bytes (RFC 1035).
const MAX_NAME_BYTES: usize = 253;
/// The maximum length of one label of a host name, in bytes (RFC 1035). Labels are separated by dots.
const MAX_LABEL_BYTES: usize = 63;

/// A host and port. All spellings of a host (`2130706433`, `0x7f.1`, `EXAMPLE.com.`, Unicode names) are normalized to
/// an IP address or a lower-case name without a trailing dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The host as it is written in URLs, with brackets around IPv6 addresses.
    name: String,
    address: Option<IpAddr>,
    port: u16,
}

/// The reason why a string is not a valid host and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidTarget {
    #[error("the target must be a host and a port, for example example.com:443, without a user name")]
    Syntax,
    #[error("the port must be a number from 1 to 65535")]
    Port,
    #[error("the host must be a valid host name or IP address")]
    Host,
}

impl Target {
    /// Parses `host:port`. If the port is missing, `default_port` is used. If `default_port` is `None` too, parsing
    /// fails.
    pub(crate) fn parse(authority: &str, default_port: Option<u16>) -> Result<Self, InvalidTarget> {
        if authority.contains('@') {
            return Err(InvalidTarget::Syntax);
        }
        let (host, rest) = match authority.find(']') {
            Some(end) if authority.starts_with('[') => authority.split_at(end + 1),
            Some(_) => return Err(InvalidTarget::Syntax),
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match rest.strip_prefix(':') {
            Some(digits) => port(digits)?,
            None if rest.is_empty() => default_port.ok_or(InvalidTarget::Syntax)?,
            None => return Err(InvalidTarget::Syntax),
        };
        Self::from_host(host, port)
    }

    pub(crate) fn from_host(host: &str, port: u16) -> Result<Self, InvalidTarget> {
        let host = Host::parse(host).map_err(|_| InvalidTarget::Host)?;
        let name = host.to_string();
        let name = name.strip_suffix('.').unwrap_or(&name).to_owned();
        let address = match host {
            Host::Domain(_) if is_name(&name) => None,
            Host::Domain(_) => return Err(InvalidTarget::Host),
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
        };
        Ok(Self { name, address, port })
    }

    /// Returns the host in the form used in URLs and host patterns, with brackets around IPv6 addresses.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the host without the brackets around IPv6 addresses.
    pub(crate) fn bare_name(&self) -> &str {
        self.name.trim_start_matches('[').trim_end_matches(']')
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the IP address if the host is an IP address, or `None` if it is a name.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Returns the value of a `Host` header field: the host, and the port unless it is `default_port`, the scheme's
    /// default.
    pub(crate) fn authority(&self, default_port: u16) -> String {
        if self.port == default_port { self.name.clone() } else { format!("{}:{}", self.name, self.port) }
    }

    /// Returns the name or IP address that the host's TLS certificate must contain.
    pub(crate) fn server_name(&self) -> Result<ServerName<'static>, InvalidTarget> {
        match self.address {
            Some(address) => Ok(ServerName::IpAddress(address.into())),
            None => ServerName::try_from(self.name.clone()).map_err(|_| InvalidTarget::Host),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

fn port(digits: &str) -> Result<u16, InvalidTarget> {
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|port| is_plain && *port != 0).ok_or(InvalidTarget::Port)
}

fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES
        && name.split('.').all(|label| (1..=MAX_LABEL_BYTES).contains(&label.len()))
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> String {
        Target::parse(text, None).unwrap().to_string()
    }

    #[test]
    fn all_spellings_of_a_host_are_normalized() {
        for (written, normalized) in [
            ("EXAMPLE.com:443", "example.com:443"),
            ("example.com.:443", "example.com:443"),
            ("b%C3%BCcher.example:443", "xn--bcher-kva.example:443"),
            ("bücher.example:443", "xn--bcher-kva.example:443"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("127.0.0.1.:80", "127.0.0.1:80"),
            ("2130706433:80", "127.0.0.1:80"),
            ("0x7f.1:80", "127.0.0.1:80"),
            ("0177.0.0.1:80", "127.0.0.1:80"),
            ("0x7f000001:80", "127.0.0.1:80"),
            ("%31%32%37.0.0.1:80", "127.0.0.1:80"),
            ("１２７.0.0.1:80", "127.0.0.1:80"),
            ("127。0。0。1:80", "127.0.0.1:80"),
            ("[0:0::1]:80", "[::1]:80"),
            ("[::ffff:127.0.0.1]:80", "[::ffff:7f00:1]:80"),
            ("under_score.example:1", "under_score.example:1"),
        ] {
            assert_eq!(read(written), normalized, "{written}");
        }
        assert_eq!(Target::parse("[2001:db8::1]:443", None).unwrap().bare_name(), "2001:db8::1");
        assert_eq!(Target::parse("a.example", Some(80)).unwrap().authority(80), "a.example");
        assert_eq!(Target::parse("a.example:81", Some(80)).unwrap().authority(80), "a.example:81");
    }

    #[test]
    fn invalid_hosts_and_ports_are_rejected() {
        use InvalidTarget::{Host, Port, Syntax};
        let long_label = format!("{}.example:80", "x".repeat(64));
        let long_name = format!("{}:80", vec!["x".repeat(60); 5].join("."));
        for (wrong, expected) in [
            ("", Syntax),
            ("example.com", Syntax),
            ("user@example.com:443", Syntax),
            ("a]b:80", Syntax),
            ("[::1]80", Syntax),
            ("example.com:", Port),
            ("example.com:0", Port),
            ("example.com:65536", Port),
            ("example.com:+80", Port),
            ("example.com:80:80", Port),
            (":80", Host),
            (".:80", Host),
            ("a..b:80", Host),
            ("example.com..:80", Host),
            ("[fe80::1%25eth0]:80", Host),
            ("[::1:80", Host),
            ("256.0.0.1:80", Host),
            ("1.2.3.4.5:80", Host),
            ("a b:80", Host),
            ("a%00b:80", Host),
            ("a%2Fb:80", Host),
            (&long_label, Host),
            (&long_name, Host),
        ] {
            let read = Target::parse(wrong, None);
            assert!(read.is_err(), "{wrong:?}: {read:?}");
            if wrong != "[::1:80" {
                assert_eq!(read, Err(expected), "{wrong:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_round_trips(text in "\\PC{0,30}(:[0-9]{0,6})?") {
            if let Ok(target) = Target::parse(&text, Some(443)) {
                prop_assert_eq!(Target::parse(&target.to_string(), None), Ok(target));
            }
        }
    }
}
