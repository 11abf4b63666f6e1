//! The private addresses that the server and its sandboxes may reach, and the default egress mode.

use std::net::IpAddr;

use herm_types::network::PrivateTarget;
use herm_types::sandbox::EgressMode;
use ipnet::IpNet;

use crate::Error;
use crate::setting::{self, Setting};
use crate::source::{Sourced, Sources};

/// The maximum number of entries in a list of private targets. More are rejected, because each connection is
/// compared with every entry.
const MAX_PRIVATE_TARGETS: usize = 256;
/// The maximum length of a host name in bytes (RFC 1035). A longer name is rejected.
const MAX_HOST_BYTES: usize = 253;

/// The settings for network access.
#[derive(Clone, Debug)]
pub struct Network {
    /// The private networks, addresses and hosts that the server may reach for skills, MCP servers,
    /// attachments and webhooks.
    pub allow_private_urls: Vec<PrivateTarget>,
    /// The private networks, addresses and hosts that sandboxes may reach.
    pub allow_private_egress: Vec<PrivateTarget>,
    /// The egress mode of deployments that do not specify one.
    pub egress_default: EgressMode,
}

impl Network {
    pub(crate) fn load(sources: &Sources<'_>) -> Result<Self, Error> {
        let egress_default = sources
            .text(&setting::EGRESS_DEFAULT)?
            .map(|raw| {
                raw.choose(&[
                    ("open", EgressMode::Open),
                    ("allowlist", EgressMode::Allowlist),
                    ("deny", EgressMode::Deny),
                ])
            })
            .transpose()?
            .unwrap_or(EgressMode::Open);
        Ok(Self {
            allow_private_urls: targets(sources, &setting::ALLOW_PRIVATE_URLS)?,
            allow_private_egress: targets(sources, &setting::ALLOW_PRIVATE_EGRESS)?,
            egress_default,
        })
    }
}

fn targets(sources: &Sources<'_>, setting: &'static Setting) -> Result<Vec<PrivateTarget>, Error> {
    let items = sources.list(setting);
    if let Some(excess) = items.get(MAX_PRIVATE_TARGETS) {
        return Err(
            excess.invalid(format!("at most {MAX_PRIVATE_TARGETS} entries are allowed; combine networks"))
        );
    }
    items.iter().map(target).collect()
}

fn target(raw: &Sourced<String>) -> Result<PrivateTarget, Error> {
    if let Ok(address) = raw.value.parse::<IpAddr>() {
        return Ok(PrivateTarget::Network(address.to_canonical().into()));
    }
    if let Ok(network) = raw.value.parse::<IpNet>() {
        // Reject a network such as 10.0.0.7/8, which is ambiguous: it could mean one machine or the whole
        // network.
        if network != network.trunc() {
            return Err(raw.unexpected(&format!(
                "{} for the network, {} for the machine",
                network.trunc(),
                network.addr()
            )));
        }
        return Ok(PrivateTarget::Network(network));
    }
    let host = raw.value.trim_end_matches('.').to_ascii_lowercase();
    // A value whose last label is a number, for example `10.0.0.300`, is a mistyped IP address and not a host
    // name.
    let numeric =
        host.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    if host.len() > MAX_HOST_BYTES || numeric || !host.split('.').all(is_label) {
        return Err(raw.unexpected(
            "a host name, an IP address or a network such as 10.0.0.0/8, without scheme and port",
        ));
    }
    Ok(PrivateTarget::Host(host))
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}
