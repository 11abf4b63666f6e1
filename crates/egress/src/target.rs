//! The host and port that a program wants to reach, read once and in one form: everything that is decided, resolved,
//! recorded and sent is this form.

use std::net::IpAddr;

use rustls::pki_types::ServerName;
use url::Host;

/// The most bytes of a host's name (RFC 1035).
const MAX_NAME_BYTES: usize = 253;
/// The most bytes of one of its labels.
const MAX_LABEL_BYTES: usize = 63;

/// A host and port. However it was written (`2130706433`, `0x7f.1`, `EXAMPLE.com.`, letters of other scripts), it is
/// kept as a lower-case name without its last dot, or as an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// As in a URL: `[…]` around an address of IPv6.
    name: String,
    address: Option<IpAddr>,
    port: u16,
}

/// A text that is not a host and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidTarget {
    #[error("the address must be a host and a port, such as example.com:443, without a user name")]
    Form,
    #[error("the port must be a number from 1 to 65535")]
    Port,
    #[error("the host is neither a name nor an address")]
    Host,
}

impl Target {
    /// Reads `host:port`; without a port it is `default_port`, if there is one.
    pub(crate) fn parse(authority: &str, default_port: Option<u16>) -> Result<Self, InvalidTarget> {
        if authority.contains('@') {
            return Err(InvalidTarget::Form);
        }
        let (host, rest) = match authority.find(']') {
            Some(end) if authority.starts_with('[') => authority.split_at(end + 1),
            Some(_) => return Err(InvalidTarget::Form),
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match rest.strip_prefix(':') {
            Some(digits) => port(digits)?,
            None if rest.is_empty() => default_port.ok_or(InvalidTarget::Form)?,
            None => return Err(InvalidTarget::Form),
        };
        Self::of_host(host, port)
    }

    pub(crate) fn of_host(host: &str, port: u16) -> Result<Self, InvalidTarget> {
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

    /// As host patterns want it, and URLs.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Without brackets.
    pub(crate) fn bare_name(&self) -> &str {
        self.name.trim_start_matches('[').trim_end_matches(']')
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The address, where the host is written as one.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// As the field `Host` has it: without the port where that is what the scheme means anyway.
    pub(crate) fn authority(&self, default_port: u16) -> String {
        if self.port == default_port { self.name.clone() } else { format!("{}:{}", self.name, self.port) }
    }

    /// What a certificate of the host must name.
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
    fn however_a_host_is_written_it_is_one() {
        for (written, kept) in [
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
            assert_eq!(read(written), kept, "{written}");
        }
        assert_eq!(Target::parse("[2001:db8::1]:443", None).unwrap().bare_name(), "2001:db8::1");
        assert_eq!(Target::parse("a.example", Some(80)).unwrap().authority(80), "a.example");
        assert_eq!(Target::parse("a.example:81", Some(80)).unwrap().authority(80), "a.example:81");
    }

    #[test]
    fn what_is_no_host_and_port_is_refused() {
        use InvalidTarget::{Form, Host, Port};
        let long_label = format!("{}.example:80", "x".repeat(64));
        let long_name = format!("{}:80", vec!["x".repeat(60); 5].join("."));
        for (wrong, why) in [
            ("", Form),
            ("example.com", Form),
            ("user@example.com:443", Form),
            ("a]b:80", Form),
            ("[::1]80", Form),
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
                assert_eq!(read, Err(why), "{wrong:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_reads_back(text in "\\PC{0,30}(:[0-9]{0,6})?") {
            if let Ok(target) = Target::parse(&text, Some(443)) {
                prop_assert_eq!(Target::parse(&target.to_string(), None), Ok(target));
            }
        }
    }
}
