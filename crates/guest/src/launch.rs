//! The launcher of local sandboxes, which runs on the host. It joins the sandbox's control groups and switches to the
//! sandbox's user before it executes bubblewrap. No process of the sandbox ever runs as root or outside these control
//! groups.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::thread::UnshareFlags;

/// The subcommand that runs the launcher. Without it, the program runs as the guest.
pub(crate) const SUBCOMMAND: &str = "launch";
/// The mount options of the launcher's temporary file system. It contains only empty directories that serve as mount
/// points, so a small size is enough.
const STAGING_MOUNT_OPTIONS: &std::ffi::CStr = c"mode=755,size=65536";

/// The parsed command line of the launcher: the command to execute, and the control groups, mounts and user with which
/// to execute it.
#[derive(Default)]
struct Launch {
    /// The `cgroup.procs` files of the control groups to join. To join a group, the launcher writes its process id to
    /// the file.
    join: Vec<PathBuf>,
    /// The host directory over which the launcher mounts a temporary file system, in a new mount namespace. The
    /// directories in `binds` are mounted inside it, because the sandbox's user may not have permission to reach their
    /// original paths.
    staging_dir: Option<PathBuf>,
    /// The host directories to bind-mount in the temporary file system, each with the name of its mount point there.
    binds: Vec<(PathBuf, OsString)>,
    user_id: Option<u32>,
    /// The name by which the command appears in the process list (`argv[0]`).
    name: Option<OsString>,
    command: Vec<OsString>,
}

/// Replaces this process with the command. Returns only on failure.
pub(crate) fn launch(arguments: impl Iterator<Item = OsString>) -> io::Error {
    match parse(arguments) {
        None => io::Error::new(io::ErrorKind::InvalidInput, "invalid arguments for `herm-guest launch`"),
        Some(launch) => become_command(&launch).unwrap_or_else(|error| error),
    }
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Option<Launch> {
    let mut launch = Launch::default();
    loop {
        match arguments.next()?.to_str()? {
            "--join" => launch.join.push(arguments.next()?.into()),
            "--stage" => launch.staging_dir = Some(arguments.next()?.into()),
            "--bind" => launch.binds.push((arguments.next()?.into(), arguments.next()?)),
            "--name" => launch.name = Some(arguments.next()?),
            "--user" => launch.user_id = Some(arguments.next()?.to_str()?.parse().ok()?),
            "--" => break,
            _ => return None,
        }
    }
    launch.command.extend(arguments);
    Some(launch)
}

fn become_command(launch: &Launch) -> io::Result<io::Error> {
    for file in &launch.join {
        std::fs::write(file, std::process::id().to_string())?;
    }
    if let Some(staging_dir) = &launch.staging_dir {
        mount_staging_dir(staging_dir, &launch.binds)?;
    }
    let (program, arguments) = launch.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some(name) = &launch.name {
        command.arg0(name);
    }
    if let Some(user_id) = launch.user_id {
        // Setting `uid` also removes the supplementary groups of root.
        command.uid(user_id).gid(user_id);
    }
    Ok(command.exec())
}

fn mount_staging_dir(staging_dir: &Path, binds: &[(PathBuf, OsString)]) -> io::Result<()> {
    #[expect(
        deprecated,
        reason = "deprecated because unsharing the file table is unsound; this unshares only the mount namespace"
    )]
    rustix::thread::unshare(UnshareFlags::NEWNS)?;
    // Make all mounts private, so that the mounts created below are not visible on the host.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    // Open the source directories before mounting the temporary file system, which may hide them.
    let sources =
        binds.iter().map(|(source, _)| std::fs::File::open(source)).collect::<io::Result<Vec<_>>>()?;
    mount("herm", staging_dir, "tmpfs", flags, STAGING_MOUNT_OPTIONS)?;
    for (source, (_, name)) in sources.iter().zip(binds) {
        use std::os::fd::AsRawFd as _;
        let target = staging_dir.join(name);
        std::fs::create_dir(&target)?;
        mount_bind(format!("/proc/self/fd/{}", source.as_raw_fd()), &target)?;
    }
    Ok(())
}
