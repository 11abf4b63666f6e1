//! Parses the sandbox settings of a deployment.

use herm_app::deployments::{FieldPatch, SandboxPatch};
use herm_types::sandbox::{Egress, EgressMode, SandboxType};
use herm_types::secret::HostPattern;
use serde_json::Value;

use super::patch::{boolean, change, group, integer, number};
use crate::input::{FieldErrors, Object};

const MAX_IMAGE_CHARS: usize = 512;
const MIN_CPU: f64 = 0.1;
const MAX_CPU: f64 = 256.0;
const MIN_MEMORY_MB: u64 = 64;
const MAX_MEMORY_MB: u64 = 1024 * 1024;
const MIN_DISK_MB: u64 = 16;
const MAX_DISK_MB: u64 = 16 * 1024 * 1024;
const MIN_IDLE_S: u64 = 10;
/// The maximum value of `idle_timeout_s`: one week, in seconds. A larger value is rejected.
const MAX_IDLE_S: u64 = 604_800;
const MAX_EGRESS_HOSTS: usize = 100;

pub(super) fn sandbox(object: &mut Object<'_>, errors: &mut FieldErrors) -> SandboxPatch {
    let reset = || SandboxPatch {
        enabled: FieldPatch::Reset,
        kind: None,
        persistent_filesystem: None,
        image: FieldPatch::Reset,
        cpu: FieldPatch::Reset,
        memory_mb: FieldPatch::Reset,
        disk_mb: FieldPatch::Reset,
        idle_timeout_s: FieldPatch::Reset,
        egress: FieldPatch::Reset,
    };
    group(object, "sandbox", errors, reset, |sandbox, errors| {
        let types = SandboxType::ALL.map(|kind| (kind.as_str(), kind));
        let persistent = change(sandbox, "persistent_filesystem", errors, boolean);
        SandboxPatch {
            enabled: change(sandbox, "enabled", errors, boolean),
            kind: sandbox.choice("type", &types, errors),
            persistent_filesystem: match persistent {
                FieldPatch::Set(persistent) => Some(persistent),
                FieldPatch::Keep | FieldPatch::Reset => None,
            },
            image: change(sandbox, "image", errors, image),
            cpu: change(sandbox, "cpu", errors, number(MIN_CPU, MAX_CPU)),
            memory_mb: change(sandbox, "memory_mb", errors, integer(MIN_MEMORY_MB, MAX_MEMORY_MB)),
            disk_mb: change(sandbox, "disk_mb", errors, integer(MIN_DISK_MB, MAX_DISK_MB)),
            idle_timeout_s: change(sandbox, "idle_timeout_s", errors, integer(MIN_IDLE_S, MAX_IDLE_S)),
            egress: egress(sandbox, errors),
        }
    })
}

fn image(value: &Value) -> Result<String, String> {
    let text = value.as_str().unwrap_or_default();
    let is_valid =
        (1..=MAX_IMAGE_CHARS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_valid {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "must be a container image name of 1 to {MAX_IMAGE_CHARS} ASCII characters without spaces"
        ))
    }
}

fn egress(sandbox: &mut Object<'_>, errors: &mut FieldErrors) -> FieldPatch<Egress> {
    let modes =
        [("deny", EgressMode::Deny), ("allowlist", EgressMode::Allowlist), ("open", EgressMode::Open)];
    group(
        sandbox,
        "egress",
        errors,
        || FieldPatch::Reset,
        |egress, errors| {
            let hosts = egress.strings("hosts", MAX_EGRESS_HOSTS, errors).flatten().unwrap_or_default();
            for (index, host) in hosts.iter().enumerate() {
                if let Err(error) = host.parse::<HostPattern>() {
                    errors.add(format!("{}[{index}]", egress.path_to("hosts")), error.to_string());
                }
            }
            let Some(mode) = egress.choice("mode", &modes, errors) else {
                if egress.is_object() && !errors.has(&egress.path_to("mode")) {
                    errors.add(
                        egress.path_to("mode"),
                        "is required; must be one of: `deny`, `allowlist`, `open`",
                    );
                }
                return FieldPatch::Keep;
            };
            match (mode, hosts.is_empty()) {
                (EgressMode::Allowlist, true) => {
                    errors.add(
                        egress.path_to("hosts"),
                        "must contain at least one host if `mode` is `allowlist`",
                    );
                }
                (EgressMode::Deny | EgressMode::Open, false) => {
                    errors.add(egress.path_to("hosts"), "must be empty unless `mode` is `allowlist`");
                }
                _ => {}
            }
            FieldPatch::Set(Egress { mode, hosts })
        },
    )
}
