//! Names resolved to addresses that may be reached.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use herm_types::network::{PrivateTarget, is_public};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// What may be reached although it is private.
#[derive(Clone, Debug, Default)]
pub struct Allowed(Arc<[PrivateTarget]>);

impl From<Vec<PrivateTarget>> for Allowed {
    fn from(targets: Vec<PrivateTarget>) -> Self {
        Self(targets.into())
    }
}

impl Allowed {
    /// Whether a host that resolves to `address` may be reached there.
    pub fn allows(&self, host: &str, address: IpAddr) -> bool {
        is_public(address)
            || self.0.iter().any(|target| target.covers_host(host) || target.covers_address(address))
    }
}

/// A host has addresses, and none of them may be reached.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the host has a private address")]
pub(crate) struct PrivateAddress;

impl Resolve for Allowed {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = self.clone();
        Box::pin(async move {
            let host = name.as_str();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            let had_some = !found.is_empty();
            let reachable: Vec<SocketAddr> =
                found.into_iter().filter(|address| allowed.allows(host, address.ip())).collect();
            if reachable.is_empty() && had_some {
                return Err(PrivateAddress.into());
            }
            Ok(Box::new(reachable.into_iter()) as Addrs)
        })
    }
}
