//! Control groups (cgroups) of local sandboxes. They limit the resources that all processes of a sandbox use together.
//!
//! The server creates the sandboxes' groups below its own group. This requires that the server runs as root or that its
//! group was delegated to it (systemd's `Delegate=yes`). In cgroup version 2, a group that sets limits for its child
//! groups cannot contain processes, so the server first moves itself into a child group.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::sleep;

use crate::spec::Limits;

/// The directory in which the control group file systems are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// The control group controllers that enforce the limits of each sandbox.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// The period over which the CPU quota is enforced, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;
/// The maximum number of attempts to create a group. An attempt fails if another task removes the parent group at the
/// same time.
const CREATE_ATTEMPTS: u32 = 10;
/// The maximum number of attempts to remove a group. An attempt fails while the group's last process is still exiting.
/// All attempts together take about one minute.
const REMOVE_ATTEMPTS: u32 = 3_000;
const REMOVE_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The parent groups below which the control groups of all sandboxes are created.
#[derive(Clone, Debug)]
pub(super) struct Cgroups {
    version: Version,
    /// The parent group in each control group hierarchy. Cgroup version 1 has several hierarchies, version 2 has one.
    parents: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Cgroups {
    /// Determines the parent groups for this server's sandboxes and checks that these groups can be created.
    ///
    /// # Errors
    /// Fails if this server cannot create control groups.
    pub(super) fn find(instance: &str) -> io::Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        Self::below(Path::new(MOUNT), &own, instance)
    }

    fn below(mount: &Path, own: &str, instance: &str) -> io::Result<Self> {
        let name = format!("herm-{instance}");
        if mount.join("cgroup.controllers").exists() {
            let group = own_group(mount, own, "");
            delegate(&group)?;
            return Self { version: Version::Two, parents: vec![group.join(name)] }.probe();
        }
        let mut parents = Vec::new();
        for controller in CONTROLLERS {
            let hierarchy = mount.join(controller);
            if !hierarchy.join("cgroup.procs").exists() {
                let message =
                    format!("the host has no control group hierarchy for the controller `{controller}`");
                return Err(io::Error::new(io::ErrorKind::NotFound, message));
            }
            let parent = own_group(&hierarchy, own, controller).join(&name);
            // Skip duplicates: controllers that are mounted together share one hierarchy, which needs only one group.
            if !parents.contains(&parent) {
                parents.push(parent);
            }
        }
        Self { version: Version::One, parents }.probe()
    }

    /// Creates the parent groups to check that this is possible. Then removes them, because this server may never start
    /// a sandbox.
    fn probe(self) -> io::Result<Self> {
        for parent in &self.parents {
            create_parent(parent, self.version)?;
            remove_if_empty(parent);
        }
        Ok(self)
    }

    /// Returns the control groups of a sandbox. They may not exist yet.
    pub(super) fn cgroup_of(&self, sandbox_id: &str) -> Cgroup {
        let dirs = self.parents.iter().map(|parent| parent.join(sandbox_id)).collect();
        Cgroup { version: self.version, dirs }
    }
}

/// Returns the directory of this process's group in a hierarchy. `own` is the content of `/proc/self/cgroup`. If the
/// group is not visible in the hierarchy, for example in a container, returns the root of the hierarchy.
fn own_group(hierarchy: &Path, own: &str, controller: &str) -> PathBuf {
    let path = own.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|known| known == controller).then_some(path)
    });
    let group = hierarchy.join(path.unwrap_or_default().trim_start_matches('/'));
    if group.join("cgroup.procs").exists() { group } else { hierarchy.to_owned() }
}

/// Enables the controllers for the child groups of `own`, the group of this process. This fails if `own` contains this
/// process. After a failure, moves this process into a child group and tries again. Used only in cgroup version 2.
fn delegate(own: &Path) -> io::Result<()> {
    if enable_controllers(own).is_err() {
        let server = own.join("herm-server");
        create_dir(&server)?;
        fs::write(server.join("cgroup.procs"), std::process::id().to_string())?;
        enable_controllers(own)?;
    }
    Ok(())
}

fn enable_controllers(group: &Path) -> io::Result<()> {
    let file = group.join("cgroup.subtree_control");
    CONTROLLERS.iter().try_for_each(|name| fs::write(&file, format!("+{name}")))
}

/// Creates the group below which the sandboxes' groups are created.
fn create_parent(parent: &Path, version: Version) -> io::Result<()> {
    create_dir(parent)?;
    if version == Version::Two { enable_controllers(parent) } else { Ok(()) }
}

/// Removes the parent group if it does not contain any sandbox's group.
fn remove_if_empty(parent: &Path) {
    // This fails if the group still contains a sandbox's group, or was already removed. Both are fine.
    let _ = fs::remove_dir(parent);
}

fn create_dir(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The control groups of one sandbox.
#[derive(Clone, Debug)]
pub(super) struct Cgroup {
    version: Version,
    dirs: Vec<PathBuf>,
}

impl Cgroup {
    /// Creates the sandbox's control groups and sets its resource limits.
    pub(super) fn create(&self, limits: Limits) -> io::Result<()> {
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
        // Set the swap limit only if its control file exists. Hosts without swap accounting do not have this file.
        let swap = match self.version {
            Version::One => ("memory.memsw.limit_in_bytes", limits.memory_bytes.to_string()),
            Version::Two => ("memory.swap.max", "0".to_owned()),
        };
        for dir in &self.dirs {
            self.create_group(dir)?;
        }
        for (file, value) in &settings {
            let dirs: Vec<&PathBuf> = self.dirs.iter().filter(|dir| dir.join(file).exists()).collect();
            if dirs.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("no control group of the sandbox has the file `{file}`"),
                ));
            }
            dirs.into_iter().try_for_each(|dir| fs::write(dir.join(file), value))?;
        }
        for dir in self.dirs.iter().filter(|dir| dir.join(swap.0).exists()) {
            fs::write(dir.join(swap.0), &swap.1)?;
        }
        Ok(())
    }

    fn create_group(&self, dir: &Path) -> io::Result<()> {
        let mut attempts = 0;
        loop {
            if let Some(parent) = dir.parent() {
                create_parent(parent, self.version)?;
            }
            match create_dir(dir) {
                // The parent group disappeared: another task stopped the last running sandbox and removed the empty
                // parent group. Create the parent group again and retry.
                Err(error) if error.kind() == io::ErrorKind::NotFound && attempts < CREATE_ATTEMPTS => {
                    attempts += 1;
                }
                result => return result,
            }
        }
    }

    /// Returns the groups' `cgroup.procs` files. A process joins the groups by writing its id to each of these files.
    pub(super) fn join_files(&self) -> Vec<PathBuf> {
        self.dirs.iter().map(|dir| dir.join("cgroup.procs")).collect()
    }

    /// Kills all processes in the groups.
    pub(super) fn kill(&self) {
        let Some(dir) = self.dirs.first() else { return };
        if self.version == Version::Two && fs::write(dir.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        for pid in processes(dir) {
            let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            // Check again that the process is in the group: its process id may have been reused before the pidfd was
            // opened. The open pidfd always refers to the same process.
            if processes(dir).contains(&pid) {
                let _ = pidfd_send_signal(&process, Signal::KILL);
            }
        }
    }

    /// Returns true if the groups contain any process, which means that the sandbox is running.
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
                    io::ErrorKind::ResourceBusy if attempts < REMOVE_ATTEMPTS => {
                        sleep(REMOVE_POLL_INTERVAL).await;
                    }
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
