//! Devices, permissions, processes.

use super::super::syntax::{Command, Script};
use super::Act;

/// Devices of a machine's disks and memory, by the beginning of their names.
const DEVICES: &[&str] = &[
    "sd", "hd", "vd", "xvd", "nvme", "mmcblk", "dm-", "md", "loop", "disk", "mapper/", "mem", "kmem", "port",
    "sr", "nbd",
];

pub(super) fn is_device(path: &str) -> bool {
    let name = path.strip_prefix("/dev/");
    name.is_some_and(|name| DEVICES.iter().any(|device| name.starts_with(device)))
}

/// Writing to a device, making a file system on it, wiping it, shredding what is broad.
pub(super) fn device(act: &Act<'_>) -> Option<String> {
    let names_device =
        act.texts().any(|arg| is_device(arg) || arg.strip_prefix("of=").is_some_and(is_device));
    let makes =
        act.name.starts_with("mkfs") || matches!(act.name, "mke2fs" | "mkswap" | "wipefs" | "blkdiscard");
    let target = act.operands().last().is_some_and(is_device);
    match act.name {
        _ if makes && act.operands().next().is_some() => Some("it makes a disk empty".to_owned()),
        "dd" if act.texts().any(|arg| arg.strip_prefix("of=").is_some_and(is_device)) => {
            Some("it overwrites a device".to_owned())
        }
        "fdisk" | "sfdisk" | "parted" | "sgdisk" | "gdisk" if names_device => {
            Some("it changes the parts of a disk".to_owned())
        }
        "cp" | "tee" | "cat" | "install" | "truncate" if target && act.name != "cat" => {
            Some("it overwrites a device".to_owned())
        }
        "shred" if names_device => Some("it overwrites a device".to_owned()),
        "shred" => act.broad().map(|what| format!("it overwrites {what}")),
        _ => None,
    }
}

/// `chmod -R`, `chown -R` on what is broad.
pub(super) fn permissions(act: &Act<'_>) -> Option<String> {
    let is_recursive = act.has_letter(&['R']) || act.texts().any(|arg| arg.starts_with("--rec"));
    if !matches!(act.name, "chmod" | "chown" | "chgrp" | "setfacl" | "chattr") || !is_recursive {
        return None;
    }
    // The first operand is the mode or the owner, unless the mode looks like an option.
    let what = act.operands().find_map(|path| act.is_broad(path))?;
    Some(format!("it changes who may use {what}"))
}

/// Signals to every process there is.
pub(super) fn kill(act: &Act<'_>) -> Option<String> {
    let all = match act.name {
        "kill" => {
            // A first -1 is a signal, unless nothing follows it.
            let is_all = |arg: &str| matches!(arg, "-1" | "-0001" | "-01");
            let targets = act.texts().skip(1).filter(|arg| *arg != "--");
            targets.clone().any(is_all) || (act.args.len() == 1 && act.texts().any(is_all))
        }
        "killall5" => true,
        "pkill" | "killall" => act.operands().any(|pattern| matches!(pattern, "." | ".*" | "" | "*")),
        _ => false,
    };
    all.then(|| "it ends every process".to_owned())
}

/// Whether a function calls itself in a pipe, in the background or several times.
pub(super) fn multiplies(name: &str, body: &Script) -> bool {
    let mut calls = 0;
    let mut spreads = false;
    count(name, body, false, &mut calls, &mut spreads);
    spreads || calls > 1 && name.chars().all(|c| !c.is_alphanumeric())
}

fn count(name: &str, script: &Script, outer: bool, calls: &mut usize, spreads: &mut bool) {
    for item in &script.items {
        let spread = outer || item.background || item.stages.len() > 1;
        for stage in &item.stages {
            match &stage.command {
                Command::Simple(words) => {
                    if words.first().is_some_and(|word| word.literal() == name) {
                        *calls += 1;
                        *spreads |= spread;
                    }
                }
                Command::Group { body, .. } | Command::For { body, .. } => {
                    count(name, body, spread, calls, spreads);
                }
                Command::Function { .. } => {}
            }
        }
    }
}
