//! The way into a local sandbox, on the host: this program starts bubblewrap in the sandbox's control groups and as its
//! user. It is the one that does, so that nothing of the sandbox is ever outside of them, and nothing of it is ever the
//! system's root.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::thread::UnshareFlags;

/// The word that asks for this; without it the program is the guest.
pub(crate) const WORD: &str = "launch";
/// Room for the directories that others are mounted on.
const STAGE_OPTIONS: &std::ffi::CStr = c"mode=755,size=65536";

/// What is to be done before the command becomes this process.
#[derive(Default)]
struct Launch {
    /// Files of control groups, into which this process writes its id.
    join: Vec<PathBuf>,
    /// A directory that is hidden behind the ones that follow, in a mount namespace of its own: another user may be
    /// barred from the way to them.
    stage: Option<PathBuf>,
    /// Directories, and their names on the stage.
    binds: Vec<(PathBuf, OsString)>,
    user_id: Option<u32>,
    /// What the command is called in lists of processes.
    name: Option<OsString>,
    command: Vec<OsString>,
}

/// Becomes the command; returns only with why that failed.
pub(crate) fn launch(arguments: impl Iterator<Item = OsString>) -> io::Error {
    match parse(arguments) {
        None => io::Error::new(io::ErrorKind::InvalidInput, "the launch makes no sense"),
        Some(launch) => become_command(&launch).unwrap_or_else(|error| error),
    }
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Option<Launch> {
    let mut launch = Launch::default();
    loop {
        match arguments.next()?.to_str()? {
            "--join" => launch.join.push(arguments.next()?.into()),
            "--stage" => launch.stage = Some(arguments.next()?.into()),
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
    if let Some(stage) = &launch.stage {
        set_stage(stage, &launch.binds)?;
    }
    let (program, arguments) = launch.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some(name) = &launch.name {
        command.arg0(name);
    }
    if let Some(user_id) = launch.user_id {
        // Its other groups go with it.
        command.uid(user_id).gid(user_id);
    }
    Ok(command.exec())
}

fn set_stage(stage: &Path, binds: &[(PathBuf, OsString)]) -> io::Result<()> {
    #[expect(
        deprecated,
        reason = "what is unsafe about it is to unshare the table of files, which this does not"
    )]
    rustix::thread::unshare(UnshareFlags::NEWNS)?;
    // Nothing of this is seen outside.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    // The sources are opened before the stage hides anything.
    let sources =
        binds.iter().map(|(source, _)| std::fs::File::open(source)).collect::<io::Result<Vec<_>>>()?;
    mount("herm", stage, "tmpfs", flags, STAGE_OPTIONS)?;
    for (source, (_, name)) in sources.iter().zip(binds) {
        use std::os::fd::AsRawFd as _;
        let target = stage.join(name);
        std::fs::create_dir(&target)?;
        mount_bind(format!("/proc/self/fd/{}", source.as_raw_fd()), &target)?;
    }
    Ok(())
}
