//! What this process gives up before it runs a command, for itself and every command after it: most of the kernel's
//! calls, and writing outside of the workspace. The engine has taken much of it away already; this is the second
//! line, and the same on every engine.

mod calls;
mod filter;

use std::io;

use landlock::{
    ABI, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetError,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Open files of one command.
const MAX_OPEN_FILES: u64 = 4096;
/// The version of Landlock whose rights are handled; an older kernel handles what it knows of them.
const LANDLOCK_ABI: ABI = ABI::V5;
/// Where commands may write.
const WRITABLE: [&str; 3] = ["/workspace", "/tmp", "/dev/shm"];
/// Where they may write to what is there.
const USABLE: [&str; 2] = ["/dev", "/proc"];

/// Limits that the engine leaves to this program, as it has no better way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// Processes and threads of the sandbox's user.
    pub(crate) processes: Option<u64>,
    /// Address space of each process.
    pub(crate) memory_bytes: Option<u64>,
}

/// Confines this process. There must be no other thread yet.
pub(crate) fn confine(limits: Limits) -> io::Result<()> {
    // No command may read this process's memory, where the token is.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    set_limits(limits)?;
    landlock().map_err(io::Error::other)?;
    filter::apply()
}

fn set_limits(limits: Limits) -> io::Result<()> {
    let fixed = [(Resource::Core, Some(0)), (Resource::Nofile, Some(MAX_OPEN_FILES))];
    let given = [(Resource::Nproc, limits.processes), (Resource::As, limits.memory_bytes)];
    for (resource, most) in fixed.into_iter().chain(given).filter(|(_, most)| most.is_some()) {
        setrlimit(resource, Rlimit { current: most, maximum: most })?;
    }
    Ok(())
}

/// Forbids to change what is outside of the writable directories. A kernel without Landlock forbids nothing here:
/// what is mounted read-only is so all the same.
fn landlock() -> Result<(), RulesetError> {
    let writes = AccessFs::from_write(LANDLOCK_ABI);
    let uses: BitFlags<AccessFs> = AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
    let mut ruleset = Ruleset::default().handle_access(writes)?.create()?;
    for (paths, access) in [(&WRITABLE[..], writes), (&USABLE[..], uses)] {
        // A directory that this image does not have needs no rule.
        for directory in paths.iter().filter_map(|path| PathFd::new(path).ok()) {
            ruleset = ruleset.add_rule(PathBeneath::new(directory, access))?;
        }
    }
    ruleset.restrict_self().map(drop)
}
