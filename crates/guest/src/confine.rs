//! Restrictions that the guest applies to itself before it starts any command, and that commands inherit: a system call
//! filter, resource limits, and write access only to the workspace and temporary directories. The sandbox engine
//! already enforces most of this; the guest adds a second layer that is the same on every engine.

mod calls;
mod filter;

use std::io;

use landlock::{
    ABI, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetError,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// The maximum number of open files per process. Opening more fails with `EMFILE`.
const MAX_OPEN_FILES: u64 = 4096;
/// The version of the Landlock ABI that determines which kinds of write access are restricted. An older kernel
/// restricts only the kinds that it knows.
const LANDLOCK_ABI: ABI = ABI::V5;
/// Directories in which commands may create, change and delete files.
const WRITABLE_DIRS: [&str; 3] = ["/workspace", "/tmp", "/dev/shm"];
/// Directories in which commands may write to existing files, but not create or delete files.
const USABLE_DIRS: [&str; 2] = ["/dev", "/proc"];

/// Resource limits that the guest sets if the sandbox engine does not enforce them. `None` means no limit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// The maximum number of processes and threads of the sandbox's user. Beyond it, processes and threads cannot be
    /// created.
    pub(crate) processes: Option<u64>,
    /// The maximum size of each process's address space, in bytes. Beyond it, memory allocations fail.
    pub(crate) memory_bytes: Option<u64>,
}

/// Applies all restrictions to this process. Must be called before the first thread is started, because the
/// restrictions would not apply to existing threads.
pub(crate) fn confine(limits: Limits) -> io::Result<()> {
    // Prevent commands from reading the memory of this process: it contains the token that proves the guest's identity
    // to the server.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    set_limits(limits)?;
    landlock().map_err(io::Error::other)?;
    filter::apply()
}

fn set_limits(limits: Limits) -> io::Result<()> {
    let fixed = [(Resource::Core, Some(0)), (Resource::Nofile, Some(MAX_OPEN_FILES))];
    let requested = [(Resource::Nproc, limits.processes), (Resource::As, limits.memory_bytes)];
    for (resource, max) in fixed.into_iter().chain(requested).filter(|(_, max)| max.is_some()) {
        setrlimit(resource, Rlimit { current: max, maximum: max })?;
    }
    Ok(())
}

/// Denies writes outside the writable directories. Has no effect on a kernel without Landlock. There, only the engine's
/// read-only mounts prevent such writes.
fn landlock() -> Result<(), RulesetError> {
    let writes = AccessFs::from_write(LANDLOCK_ABI);
    let uses: BitFlags<AccessFs> = AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
    let mut ruleset = Ruleset::default().handle_access(writes)?.create()?;
    for (paths, access) in [(&WRITABLE_DIRS[..], writes), (&USABLE_DIRS[..], uses)] {
        // Skip directories that do not exist in this sandbox. Which ones exist depends on the image.
        for directory in paths.iter().filter_map(|path| PathFd::new(path).ok()) {
            ruleset = ruleset.add_rule(PathBeneath::new(directory, access))?;
        }
    }
    ruleset.restrict_self().map(drop)
}
