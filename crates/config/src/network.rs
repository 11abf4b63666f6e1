//! What may be reached: private addresses that are allowed although private, and the sandboxes' default.

use std::net::IpAddr;

use herm_types::network::PrivateTarget;
use ipnet::IpNet;

use crate::Error;
use crate::setting::{self, Setting};
use crate::source::{Found, Sources};

/// Most entries of one list; each is compared at every connection.
const MAX_PRIVATE_TARGETS: usize = 256;
/// Longest host name, in bytes (RFC 1035).
const MAX_HOST_BYTES: usize = 253;

/// Egress of a sandbox that names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressDefault {
    /// Every public address.
    Open,
    /// The hosts its deployment lists.
    Allowlist,
    /// Nothing.
    Deny,
}

/// What may be reached.
#[derive(Clone, Debug)]
pub struct Network {
    /// For skills, MCP servers, attachments and webhooks.
    pub allow_private_urls: Vec<PrivateTarget>,
    /// For sandboxes.
    pub allow_private_egress: Vec<PrivateTarget>,
    /// Egress of a sandbox that names none.
    pub egress_default: EgressDefault,
}

impl Network {
    pub(crate) fn load(sources: &Sources<'_>) -> Result<Self, Error> {
        let egress_default = sources
            .text(&setting::EGRESS_DEFAULT)?
            .map(|found| {
                found.choose(&[
                    ("open", EgressDefault::Open),
                    ("allowlist", EgressDefault::Allowlist),
                    ("deny", EgressDefault::Deny),
                ])
            })
            .transpose()?
            .unwrap_or(EgressDefault::Open);
        Ok(Self {
            allow_private_urls: targets(sources, &setting::ALLOW_PRIVATE_URLS)?,
            allow_private_egress: targets(sources, &setting::ALLOW_PRIVATE_EGRESS)?,
            egress_default,
        })
    }
}

fn targets(sources: &Sources<'_>, setting: &'static Setting) -> Result<Vec<PrivateTarget>, Error> {
    let items = sources.list(setting);
    if let Some(beyond) = items.get(MAX_PRIVATE_TARGETS) {
        return Err(beyond.invalid(format!("at most {MAX_PRIVATE_TARGETS} entries; join networks")));
    }
    items.iter().map(target).collect()
}

fn target(found: &Found<String>) -> Result<PrivateTarget, Error> {
    if let Ok(address) = found.value.parse::<IpAddr>() {
        return Ok(PrivateTarget::Network(address.to_canonical().into()));
    }
    if let Ok(network) = found.value.parse::<IpNet>() {
        // 10.0.0.7/8 may mean one machine or sixteen million; which, is not ours to guess.
        if network != network.trunc() {
            return Err(found.not(&format!(
                "{} for the network, {} for the machine",
                network.trunc(),
                network.addr()
            )));
        }
        return Ok(PrivateTarget::Network(network));
    }
    let host = found.value.trim_end_matches('.').to_ascii_lowercase();
    // A name whose last label is a number is an address written wrongly, not a name.
    let numeric =
        host.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    if host.len() > MAX_HOST_BYTES || numeric || !host.split('.').all(is_label) {
        return Err(
            found.not("a host name, an address or a network such as 10.0.0.0/8, without scheme or port")
        );
    }
    Ok(PrivateTarget::Host(host))
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}
