//! Classifies IP addresses as public or private, and defines the exceptions: private destinations to which an
//! operator allows connections.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// A private destination that the operator allows the server or the sandboxes to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrivateTarget {
    /// A range of IP addresses. A single address is stored as a range of one.
    Network(IpNet),
    /// A host name in lower case. It is allowed even if it resolves to a private address.
    Host(String),
}

impl PrivateTarget {
    /// Returns true if this destination is a range of IP addresses that contains `address`.
    pub fn covers_address(&self, address: IpAddr) -> bool {
        match self {
            // An IPv4-mapped IPv6 address (`::ffff:10.0.0.1`) reaches the same machine as the IPv4 address.
            Self::Network(network) => network.contains(&address.to_canonical()),
            Self::Host(_) => false,
        }
    }

    /// Returns true if this destination is the host `name`. Case and a trailing dot are ignored.
    pub fn covers_host(&self, name: &str) -> bool {
        match self {
            Self::Network(_) => false,
            Self::Host(host) => host.eq_ignore_ascii_case(name.trim_end_matches('.')),
        }
    }
}

/// IPv4 ranges that are not part of the public internet, from the IANA special-purpose address registry. Each
/// is a first address and a prefix length. 169.254.0.0/16 contains the metadata services of cloud providers.
const RESERVED_V4: [(Ipv4Addr, u32); 15] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// The IPv6 range of global unicast addresses. Addresses outside it count as private, unless they embed a
/// public IPv4 address.
const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
/// The ranges within [`GLOBAL_V6`] that are not part of the public internet.
const RESERVED_V6: [(Ipv6Addr, u32); 3] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];
/// The IPv6 ranges of NAT64 and 6to4, whose addresses embed an IPv4 address. Each is a first address, a
/// prefix length, and the number of bits to the right of the embedded IPv4 address.
const TRANSLATED_V6: [(Ipv6Addr, u32, u32); 2] = [
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96, 0),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, 80),
];

/// Returns true if an address is part of the public internet. For an IPv6 address that embeds an IPv4
/// address, the result is that of the IPv4 address.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => !RESERVED_V4.iter().any(|(network, length)| {
            same_prefix(u128::from(address.to_bits()), u128::from(network.to_bits()), 32 - length)
        }),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let is_in =
        |(network, length): (Ipv6Addr, u32)| same_prefix(address.to_bits(), network.to_bits(), 128 - length);
    for (network, length, from_right) in TRANSLATED_V6 {
        if is_in((network, length)) {
            let low = u32::try_from((address.to_bits() >> from_right) & u128::from(u32::MAX)).unwrap_or(0);
            return is_public(IpAddr::V4(Ipv4Addr::from_bits(low)));
        }
    }
    is_in(GLOBAL_V6) && !RESERVED_V6.into_iter().any(is_in)
}

/// Returns true if two addresses are equal when their last `host_bits` bits are ignored.
fn same_prefix(left: u128, right: u128, host_bits: u32) -> bool {
    (left ^ right) >> host_bits == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(text: &str) -> bool {
        is_public(text.parse().unwrap())
    }

    #[test]
    fn internet_addresses_are_public() {
        for text in
            ["1.1.1.1", "8.8.8.8", "172.15.255.255", "172.32.0.1", "100.63.255.255", "2606:4700::1111"]
        {
            assert!(public(text), "{text}");
        }
        for text in ["::ffff:1.1.1.1", "64:ff9b::1.1.1.1", "2002:0101:0101::1"] {
            assert!(public(text), "{text}");
        }
    }

    #[test]
    fn private_addresses_are_not_public_in_any_notation() {
        let private = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1.1.1.1",
            "2002:7f00:0001::1",
            "2002:c0a8:0101::1",
        ];
        for text in private {
            assert!(!public(text), "{text}");
        }
    }
}
