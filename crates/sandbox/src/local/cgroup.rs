//! Control groups of local sandboxes: what all processes of one may use together.
//!
//! The server makes them below its own, where the host lets it: as root, or below a group that was delegated to it
//! (systemd's `Delegate=yes`). Version 2 keeps processes out of groups that have limited children, so there the server
//! moves itself into a child of its own first.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::sleep;

use crate::spec::Limits;

/// Where control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// What is limited.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// The time over which a share of processors is measured.
const CPU_PERIOD_US: u64 = 100_000;
/// How often a group is made whose place goes again and again.
const MAKE_ATTEMPTS: u32 = 10;
/// How often a group is asked to go, for a minute: its last process may be on its way out.
const REMOVE_ATTEMPTS: u32 = 3_000;
const REMOVE_EVERY: Duration = Duration::from_millis(20);

/// The groups below which each sandbox gets its own.
#[derive(Clone, Debug)]
pub(super) struct Cgroups {
    version: Version,
    /// One for each hierarchy.
    parents: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Cgroups {
    /// Makes the groups that hold this server's sandboxes.
    ///
    /// # Errors
    /// The host gives this server none.
    pub(super) fn find(instance: &str) -> io::Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        Self::below(Path::new(MOUNT), &own, instance)
    }

    fn below(mount: &Path, own: &str, instance: &str) -> io::Result<Self> {
        let name = format!("herm-{instance}");
        if mount.join("cgroup.controllers").exists() {
            let group = own_group(mount, own, "");
            delegate(&group)?;
            return Self { version: Version::Two, parents: vec![group.join(name)] }.tried();
        }
        let mut parents = Vec::new();
        for controller in CONTROLLERS {
            let hierarchy = mount.join(controller);
            if !hierarchy.join("cgroup.procs").exists() {
                let message = format!("there is no control group for {controller}");
                return Err(io::Error::new(io::ErrorKind::NotFound, message));
            }
            let parent = own_group(&hierarchy, own, controller).join(&name);
            // Hierarchies that are mounted together are one.
            if !parents.contains(&parent) {
                parents.push(parent);
            }
        }
        Self { version: Version::One, parents }.tried()
    }

    /// Whether groups can be made: nothing is left of the trial, as there are servers that never start a sandbox.
    fn tried(self) -> io::Result<Self> {
        for parent in &self.parents {
            make_parent(parent, self.version)?;
            remove_if_empty(parent);
        }
        Ok(self)
    }

    pub(super) fn of(&self, sandbox_id: &str) -> Cgroup {
        let dirs = self.parents.iter().map(|parent| parent.join(sandbox_id)).collect();
        Cgroup { version: self.version, dirs }
    }
}

/// This process's own group in a hierarchy, from the text of `/proc/self/cgroup`; the root where the mount does not
/// show it, as in a container.
fn own_group(hierarchy: &Path, own: &str, controller: &str) -> PathBuf {
    let path = own.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|known| known == controller).then_some(path)
    });
    let group = hierarchy.join(path.unwrap_or_default().trim_start_matches('/'));
    if group.join("cgroup.procs").exists() { group } else { hierarchy.to_owned() }
}

/// Lets this process's own group of version 2 have limited children.
fn delegate(own: &Path) -> io::Result<()> {
    if enable_controllers(own).is_err() {
        let server = own.join("herm-server");
        make_dir(&server)?;
        fs::write(server.join("cgroup.procs"), std::process::id().to_string())?;
        enable_controllers(own)?;
    }
    Ok(())
}

fn enable_controllers(group: &Path) -> io::Result<()> {
    let file = group.join("cgroup.subtree_control");
    CONTROLLERS.iter().try_for_each(|name| fs::write(&file, format!("+{name}")))
}

/// Makes the group that holds those of a server's sandboxes.
fn make_parent(parent: &Path, version: Version) -> io::Result<()> {
    make_dir(parent)?;
    if version == Version::Two { enable_controllers(parent) } else { Ok(()) }
}

/// The group that held others goes with the last of them.
fn remove_if_empty(parent: &Path) {
    // That it is not empty, or gone already, is as good.
    let _ = fs::remove_dir(parent);
}

fn make_dir(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// One sandbox's groups.
#[derive(Clone, Debug)]
pub(super) struct Cgroup {
    version: Version,
    dirs: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes the groups, with these limits.
    pub(super) fn make(&self, limits: Limits) -> io::Result<()> {
        let quota_us = u64::from(limits.cpu_millis) * CPU_PERIOD_US / 1_000;
        let settings: Vec<(&str, String)> = match self.version {
            Version::One => vec![
                ("memory.limit_in_bytes", limits.memory_bytes.to_string()),
                ("cpu.cfs_period_us", CPU_PERIOD_US.to_string()),
                ("cpu.cfs_quota_us", quota_us.to_string()),
                ("pids.max", limits.processes.to_string()),
            ],
            Version::Two => vec![
                ("memory.max", limits.memory_bytes.to_string()),
                ("cpu.max", format!("{quota_us} {CPU_PERIOD_US}")),
                ("pids.max", limits.processes.to_string()),
            ],
        };
        // Hosts that do not account for swap have no such file.
        let swap = match self.version {
            Version::One => ("memory.memsw.limit_in_bytes", limits.memory_bytes.to_string()),
            Version::Two => ("memory.swap.max", "0".to_owned()),
        };
        for dir in &self.dirs {
            self.make_group(dir)?;
        }
        for (file, value) in &settings {
            let dirs: Vec<&PathBuf> = self.dirs.iter().filter(|dir| dir.join(file).exists()).collect();
            if dirs.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, format!("no control group has {file}")));
            }
            dirs.into_iter().try_for_each(|dir| fs::write(dir.join(file), value))?;
        }
        for dir in self.dirs.iter().filter(|dir| dir.join(swap.0).exists()) {
            fs::write(dir.join(swap.0), &swap.1)?;
        }
        Ok(())
    }

    fn make_group(&self, dir: &Path) -> io::Result<()> {
        let mut attempts = 0;
        loop {
            if let Some(parent) = dir.parent() {
                make_parent(parent, self.version)?;
            }
            match make_dir(dir) {
                // The last of the others went in between, and took the group that held it along.
                Err(error) if error.kind() == io::ErrorKind::NotFound && attempts < MAKE_ATTEMPTS => {
                    attempts += 1;
                }
                made => return made,
            }
        }
    }

    /// A process that writes its id into each of these is in the groups.
    pub(super) fn join_files(&self) -> Vec<PathBuf> {
        self.dirs.iter().map(|dir| dir.join("cgroup.procs")).collect()
    }

    /// Ends every process in the groups.
    pub(super) fn kill(&self) {
        let Some(dir) = self.dirs.first() else { return };
        if self.version == Version::Two && fs::write(dir.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        for pid in processes(dir) {
            let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            // The number may be another's since it was read; the descriptor is not.
            if processes(dir).contains(&pid) {
                let _ = pidfd_send_signal(&process, Signal::KILL);
            }
        }
    }

    /// Whether there is a process in the groups.
    pub(super) fn has_processes(&self) -> bool {
        self.dirs.first().is_some_and(|dir| !processes(dir).is_empty())
    }

    pub(super) async fn remove(&self) -> io::Result<()> {
        for dir in &self.dirs {
            let mut attempts = 0;
            while let Err(error) = fs::remove_dir(dir) {
                attempts += 1;
                match error.kind() {
                    io::ErrorKind::NotFound => break,
                    io::ErrorKind::ResourceBusy if attempts < REMOVE_ATTEMPTS => sleep(REMOVE_EVERY).await,
                    _ => return Err(error),
                }
            }
            dir.parent().into_iter().for_each(remove_if_empty);
        }
        Ok(())
    }
}

fn processes(dir: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect()
}
