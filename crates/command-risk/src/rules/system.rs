//! Risk rules for devices, file permissions and processes.

use super::super::syntax::{Command, Script};
use super::Invocation;

/// Name prefixes of the device files for disks and memory, relative to `/dev/`.
const DEVICES: &[&str] = &[
    "sd", "hd", "vd", "xvd", "nvme", "mmcblk", "dm-", "md", "loop", "disk", "mapper/", "mem", "kmem", "port",
    "sr", "nbd",
];

pub(super) fn is_device(path: &str) -> bool {
    let name = path.strip_prefix("/dev/");
    name.is_some_and(|name| DEVICES.iter().any(|device| name.starts_with(device)))
}

/// Detects a command that writes to a device, formats or wipes it, or shreds a broad path such as `/`.
pub(super) fn device(invocation: &Invocation<'_>) -> Option<String> {
    let names_device =
        invocation.texts().any(|arg| is_device(arg) || arg.strip_prefix("of=").is_some_and(is_device));
    let formats = invocation.name.starts_with("mkfs")
        || matches!(invocation.name, "mke2fs" | "mkswap" | "wipefs" | "blkdiscard");
    let targets_device = invocation.operands().last().is_some_and(is_device);
    match invocation.name {
        _ if formats && invocation.operands().next().is_some() => Some("it erases a disk".to_owned()),
        "dd" if invocation.texts().any(|arg| arg.strip_prefix("of=").is_some_and(is_device)) => {
            Some("it overwrites a device".to_owned())
        }
        "fdisk" | "sfdisk" | "parted" | "sgdisk" | "gdisk" if names_device => {
            Some("it changes the partitions of a disk".to_owned())
        }
        "cp" | "tee" | "cat" | "install" | "truncate" if targets_device && invocation.name != "cat" => {
            Some("it overwrites a device".to_owned())
        }
        "shred" if names_device => Some("it overwrites a device".to_owned()),
        "shred" => invocation.broad().map(|description| format!("it overwrites {description}")),
        _ => None,
    }
}

/// Detects `chmod -R`, `chown -R` and similar commands that change permissions or owners recursively on a
/// broad path such as `/` or the workspace.
pub(super) fn permissions(invocation: &Invocation<'_>) -> Option<String> {
    let is_recursive =
        invocation.has_short_option(&['R']) || invocation.texts().any(|arg| arg.starts_with("--rec"));
    if !matches!(invocation.name, "chmod" | "chown" | "chgrp" | "setfacl" | "chattr") || !is_recursive {
        return None;
    }
    // The first operand is usually the mode or the owner. Neither looks like a broad path, so the check can
    // include it.
    let description = invocation.operands().find_map(|path| invocation.is_broad(path))?;
    Some(format!("it changes the permissions of {description}"))
}

/// Detects a command that sends a signal to every process.
pub(super) fn kill(invocation: &Invocation<'_>) -> Option<String> {
    let all = match invocation.name {
        "kill" => {
            // A leading `-1` is the signal number if more arguments follow. Otherwise it means every process.
            let is_all = |arg: &str| matches!(arg, "-1" | "-0001" | "-01");
            let targets = invocation.texts().skip(1).filter(|arg| *arg != "--");
            targets.clone().any(is_all) || (invocation.args.len() == 1 && invocation.texts().any(is_all))
        }
        "killall5" => true,
        "pkill" | "killall" => invocation.operands().any(|pattern| matches!(pattern, "." | ".*" | "" | "*")),
        _ => false,
    };
    all.then(|| "it kills every process".to_owned())
}

/// Returns true if the body of the function `name` calls `name` in a pipeline or in the background. If the
/// name contains no letters or digits, as in the classic fork bomb `:`, two calls anywhere in the body are
/// enough.
pub(super) fn is_fork_bomb(name: &str, body: &Script) -> bool {
    let mut calls = 0;
    let mut forks = false;
    count_calls(name, body, false, &mut calls, &mut forks);
    forks || calls > 1 && name.chars().all(|c| !c.is_alphanumeric())
}

fn count_calls(name: &str, script: &Script, outer: bool, calls: &mut usize, forks: &mut bool) {
    for pipeline in &script.pipelines {
        let forking = outer || pipeline.background || pipeline.stages.len() > 1;
        for stage in &pipeline.stages {
            match &stage.command {
                Command::Simple(words) => {
                    if words.first().is_some_and(|word| word.literal() == name) {
                        *calls += 1;
                        *forks |= forking;
                    }
                }
                Command::Group { body, .. } | Command::For { body, .. } => {
                    count_calls(name, body, forking, calls, forks);
                }
                Command::Function { .. } => {}
            }
        }
    }
}
