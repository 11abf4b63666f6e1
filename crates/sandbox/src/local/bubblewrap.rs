//! What a sandbox is made of: bubblewrap's arguments.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::cgroup::Cgroup;
use crate::engine::{GUEST_PATH, MASKED, SHM_BYTES, SOCKET_DIR, TMP_BYTES, USER_ID, USUAL_ENV, USUAL_PATH};
use crate::place::Place;
use crate::shared::Shared;
use crate::spec::{Error, Spec};

/// The most characters of what bubblewrap said.
const MAX_REASON_CHARS: usize = 500;

/// What a sandbox's process outside of it is called.
pub(super) fn name_of(instance: &str, sandbox_id: &str) -> String {
    format!("herm-sandbox:{instance}:{sandbox_id}")
}

/// How a sandbox is launched.
pub(super) struct Launch<'a> {
    /// In lists of processes, so that an operator sees whose they are.
    pub(super) name: &'a str,
    pub(super) shared: &'a Shared,
    pub(super) cgroup: Option<&'a Cgroup>,
    /// A user of the sandbox's own, and a directory that its launch hides, in a mount namespace of its own.
    pub(super) user: Option<(u32, &'a Path)>,
    pub(super) away: Duration,
}

/// The system's directories that commands see, read-only, as far as the host has them.
const SYSTEM: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"];
/// What of the host's `/etc` is no secret and is needed by common programs.
const ETC: [&str; 8] = [
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/ssl/certs",
    "/etc/terminfo",
];
/// The launcher's command line up to bubblewrap's name, and the directories that bubblewrap is to mount.
fn launcher(launch: &Launch<'_>, dirs: [(&'static str, PathBuf); 3]) -> (Command, [PathBuf; 3]) {
    let mut command = Command::new(launch.shared.file("guest"));
    command.args(["launch", "--name", launch.name]);
    for file in launch.cgroup.map(Cgroup::join_files).unwrap_or_default() {
        command.arg("--join").arg(file);
    }
    let mounted = match launch.user {
        None => dirs.map(|(_, dir)| dir),
        Some((user_id, stage)) => {
            command.arg("--user").arg(user_id.to_string()).arg("--stage").arg(stage);
            dirs.map(|(name, dir)| {
                command.arg("--bind").arg(dir).arg(name);
                stage.join(name)
            })
        }
    };
    command.args(["--", "bwrap"]);
    (command, mounted)
}

fn isolated(mut command: Command) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_else(|| USUAL_PATH.into());
    command
        .env_clear()
        .env("PATH", path)
        .args([
            "--unshare-all",
            "--unshare-user",
            "--uid",
            &USER_ID.to_string(),
            "--gid",
            &USER_ID.to_string(),
            "--hostname",
            "sandbox",
        ])
        .args(["--disable-userns", "--new-session", "--cap-drop", "ALL", "--clearenv", "--as-pid-1"]);
    for dir in SYSTEM {
        match fs::read_link(dir) {
            Ok(target) => command.arg("--symlink").arg(target).arg(dir),
            Err(_) => command.args(["--ro-bind-try", dir, dir]),
        };
    }
    command.args(["--proc", "/proc"]);
    for path in MASKED.into_iter().filter(|path| Path::new(path).exists()) {
        command.args(["--ro-bind", "/dev/null", path]);
    }
    // Read-only, as root could write the settings of the whole kernel in `/proc/sys`, also without capabilities.
    command.args(["--remount-ro", "/proc"]);
    command.args([
        "--dev",
        "/dev",
        "--size",
        &SHM_BYTES.to_string(),
        "--tmpfs",
        "/dev/shm",
        "--remount-ro",
        "/dev",
    ]);
    command.args(["--size", &TMP_BYTES.to_string(), "--tmpfs", "/tmp"]);
    command
}

/// Starts a sandbox. It is not ended with this process.
pub(super) async fn start(launch: &Launch<'_>, place: &Place, spec: &Spec) -> Result<Child, Error> {
    let shared_dir = launch.shared.dir().to_owned();
    let dirs =
        [("workspace", spec.workspace_dir.clone()), ("socket", place.run_dir()), ("shared", shared_dir)];
    let (command, [workspace_dir, socket_dir, shared_dir]) = launcher(launch, dirs);
    let mut command = isolated(command);
    for path in ETC {
        command.args(["--ro-bind-try", path, path]);
    }
    for (name, path) in [("passwd", "/etc/passwd"), ("group", "/etc/group"), ("hosts", "/etc/hosts")] {
        command.arg("--ro-bind").arg(shared_dir.join(name)).arg(path);
    }
    command.args(["--tmpfs", "/run"]);
    for name in ["guest", "ca-bundle.pem", "ca.pem"] {
        command.arg("--ro-bind").arg(shared_dir.join(name)).arg(format!("/run/herm/{name}"));
    }
    command.arg("--ro-bind").arg(socket_dir).arg(SOCKET_DIR);
    // Read-only, so that nobody puts a socket of their own where the guest dials.
    command.args(["--remount-ro", "/run"]);
    command.arg("--bind").arg(workspace_dir).arg("/workspace");
    command.args(["--remount-ro", "/", "--chdir", "/workspace"]);
    let given = spec.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in [("PATH", USUAL_PATH)].into_iter().chain(USUAL_ENV).chain(given) {
        command.args(["--setenv", name, value]);
    }
    command.args(["--", GUEST_PATH, SOCKET_DIR, &launch.away.as_millis().to_string()]);
    // Where the host has control groups they bound the sandbox as a whole, which this cannot.
    let memory = launch.cgroup.map_or_else(|| spec.limits.memory_bytes.to_string(), |_| "-".to_owned());
    command.args([&spec.limits.processes.to_string(), &memory]);
    let log = fs::File::create(place.log_file())?;
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?)
}

/// Whether a sandbox can be started here, launched in this way.
pub(super) async fn check(launch: &Launch<'_>) -> Result<(), Error> {
    let shared_dir = launch.shared.dir();
    let dirs = ["workspace", "socket", "shared"].map(|name| (name, shared_dir.to_owned()));
    let (command, _) = launcher(launch, dirs);
    let output = isolated(command).args(["--", "/bin/true"]).stdin(Stdio::null()).output().await?;
    if output.status.success() { Ok(()) } else { Err(explain(&String::from_utf8_lossy(&output.stderr))) }
}

/// Why a sandbox ended instead of starting, in the words of what ended.
pub(super) fn reason(place: &Place) -> Error {
    explain(&fs::read_to_string(place.log_file()).unwrap_or_default())
}

fn explain(log: &str) -> Error {
    let log: String = log.trim().chars().take(MAX_REASON_CHARS).collect();
    if log.contains("No such file or directory") && log.starts_with("herm-guest:") {
        return Error::NotInstalled;
    }
    if log.starts_with("bwrap:") { Error::NotAllowed(log) } else { Error::NotStarted(log) }
}
