//! A DNS resolver that returns only addresses to which connections are allowed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use herm_types::network::{PrivateTarget, is_public};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The addresses to which connections are allowed: all public addresses, and the private targets in this
/// list.
#[derive(Clone, Debug, Default)]
pub struct AllowedAddresses(Arc<[PrivateTarget]>);

impl From<Vec<PrivateTarget>> for AllowedAddresses {
    fn from(targets: Vec<PrivateTarget>) -> Self {
        Self(targets.into())
    }
}

impl AllowedAddresses {
    /// Returns true if connections to `host` at `address` are allowed. `address` must be the result of
    /// resolving `host`.
    pub fn allows(&self, host: &str, address: IpAddr) -> bool {
        is_public(address)
            || self.0.iter().any(|target| target.covers_host(host) || target.covers_address(address))
    }
}

/// The error for a host that has addresses, but none to which connections are allowed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the host has a private address")]
pub(crate) struct PrivateAddress;

impl Resolve for AllowedAddresses {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = self.clone();
        Box::pin(async move {
            let host = name.as_str();
            let resolved: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            let has_addresses = !resolved.is_empty();
            let reachable: Vec<SocketAddr> =
                resolved.into_iter().filter(|address| allowed.allows(host, address.ip())).collect();
            if reachable.is_empty() && has_addresses {
                return Err(PrivateAddress.into());
            }
            Ok(Box::new(reachable.into_iter()) as Addrs)
        })
    }
}
