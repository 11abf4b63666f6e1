//! What a body says of the sandbox.

use herm_app::deployments::{Change, SandboxChanges};
use herm_types::sandbox::{Egress, EgressMode, SandboxType};
use herm_types::secret::HostPattern;
use serde_json::Value;

use super::body::{boolean, change, group, number, whole};
use crate::input::{Faults, Object};

const MAX_IMAGE_CHARS: usize = 512;
const MIN_CPU: f64 = 0.1;
const MAX_CPU: f64 = 256.0;
const MIN_MEMORY_MB: u64 = 64;
const MAX_MEMORY_MB: u64 = 1024 * 1024;
const MIN_DISK_MB: u64 = 16;
const MAX_DISK_MB: u64 = 16 * 1024 * 1024;
const MIN_IDLE_S: u64 = 10;
/// A week.
const MAX_IDLE_S: u64 = 604_800;
const MAX_EGRESS_HOSTS: usize = 100;

pub(super) fn sandbox(object: &mut Object<'_>, faults: &mut Faults) -> SandboxChanges {
    let reset = || SandboxChanges {
        enabled: Change::Reset,
        kind: None,
        persistent_filesystem: None,
        image: Change::Reset,
        cpu: Change::Reset,
        memory_mb: Change::Reset,
        disk_mb: Change::Reset,
        idle_timeout_s: Change::Reset,
        egress: Change::Reset,
    };
    group(object, "sandbox", faults, reset, |sandbox, faults| {
        let types = SandboxType::ALL.map(|kind| (kind.as_str(), kind));
        let persistent = change(sandbox, "persistent_filesystem", faults, boolean);
        SandboxChanges {
            enabled: change(sandbox, "enabled", faults, boolean),
            kind: sandbox.choice("type", &types, faults),
            persistent_filesystem: match persistent {
                Change::Set(persistent) => Some(persistent),
                Change::Keep | Change::Reset => None,
            },
            image: change(sandbox, "image", faults, image),
            cpu: change(sandbox, "cpu", faults, number(MIN_CPU, MAX_CPU)),
            memory_mb: change(sandbox, "memory_mb", faults, whole(MIN_MEMORY_MB, MAX_MEMORY_MB)),
            disk_mb: change(sandbox, "disk_mb", faults, whole(MIN_DISK_MB, MAX_DISK_MB)),
            idle_timeout_s: change(sandbox, "idle_timeout_s", faults, whole(MIN_IDLE_S, MAX_IDLE_S)),
            egress: egress(sandbox, faults),
        }
    })
}

fn image(value: &Value) -> Result<String, String> {
    let text = value.as_str().unwrap_or_default();
    let is_sane =
        (1..=MAX_IMAGE_CHARS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_sane { Ok(text.to_owned()) } else { Err("must be the name of a container image".to_owned()) }
}

fn egress(sandbox: &mut Object<'_>, faults: &mut Faults) -> Change<Egress> {
    let modes =
        [("deny", EgressMode::Deny), ("allowlist", EgressMode::Allowlist), ("open", EgressMode::Open)];
    group(
        sandbox,
        "egress",
        faults,
        || Change::Reset,
        |egress, faults| {
            let hosts = egress.texts("hosts", MAX_EGRESS_HOSTS, faults).flatten().unwrap_or_default();
            for (index, host) in hosts.iter().enumerate() {
                if let Err(error) = host.parse::<HostPattern>() {
                    faults.add(format!("{}[{index}]", egress.path_to("hosts")), error.to_string());
                }
            }
            let Some(mode) = egress.choice("mode", &modes, faults) else {
                if egress.is_there() && !faults.has(&egress.path_to("mode")) {
                    faults.add(egress.path_to("mode"), "is required: deny, allowlist or open");
                }
                return Change::Keep;
            };
            match (mode, hosts.is_empty()) {
                (EgressMode::Allowlist, true) => {
                    faults
                        .add(egress.path_to("hosts"), "must name at least one host with the mode allowlist");
                }
                (EgressMode::Deny | EgressMode::Open, false) => {
                    faults.add(egress.path_to("hosts"), "belongs to the mode allowlist");
                }
                _ => {}
            }
            Change::Set(Egress { mode, hosts })
        },
    )
}
