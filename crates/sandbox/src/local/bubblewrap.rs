//! Builds bubblewrap's command line and starts local sandboxes with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::cgroup::Cgroup;
use crate::engine::{
    DEFAULT_ENV, DEFAULT_PATH, GUEST_PATH, MASKED_PATHS, SHM_BYTES, SOCKET_DIR, TMP_BYTES, USER_ID,
};
use crate::sandbox_dir::SandboxDir;
use crate::shared_files::SharedFiles;
use crate::spec::{Error, Spec};

/// The maximum number of characters of bubblewrap's output that an error message contains. Longer output is truncated.
const MAX_REASON_CHARS: usize = 500;

/// Returns the name by which a sandbox's process appears in the host's process list.
pub(super) fn process_name(instance: &str, sandbox_id: &str) -> String {
    format!("herm-sandbox:{instance}:{sandbox_id}")
}

/// The parameters with which a local sandbox is launched.
pub(super) struct Launch<'a> {
    /// The name by which the sandbox appears in the host's process list. It tells an operator which sandbox a process
    /// belongs to.
    pub(super) name: &'a str,
    pub(super) shared_files: &'a SharedFiles,
    pub(super) cgroup: Option<&'a Cgroup>,
    /// The sandbox's user id on the host, and the host directory over which the launcher mounts its temporary file
    /// system. If `None`, the sandbox runs as the server's user.
    pub(super) user: Option<(u32, &'a Path)>,
    pub(super) reconnect_timeout: Duration,
}

/// The host's system directories that are mounted read-only into sandboxes. Directories that do not exist are skipped.
const SYSTEM_DIRS: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"];
/// Paths in the host's `/etc` that are mounted read-only into sandboxes because common programs need them. They contain
/// no secrets.
const ETC_PATHS: [&str; 8] = [
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/ssl/certs",
    "/etc/terminfo",
];

/// Returns the command line of the launcher, which executes bubblewrap, up to and including the program name `bwrap`.
/// Also returns, for each of `dirs`, the host path from which bubblewrap must mount it into the sandbox.
fn launcher_command(launch: &Launch<'_>, dirs: [(&'static str, PathBuf); 3]) -> (Command, [PathBuf; 3]) {
    let mut command = Command::new(launch.shared_files.file("guest"));
    command.args(["launch", "--name", launch.name]);
    for file in launch.cgroup.map(Cgroup::join_files).unwrap_or_default() {
        command.arg("--join").arg(file);
    }
    let mounted = match launch.user {
        None => dirs.map(|(_, dir)| dir),
        Some((user_id, staging_dir)) => {
            command.arg("--user").arg(user_id.to_string()).arg("--stage").arg(staging_dir);
            dirs.map(|(name, dir)| {
                command.arg("--bind").arg(dir).arg(name);
                staging_dir.join(name)
            })
        }
    };
    command.args(["--", "bwrap"]);
    (command, mounted)
}

fn add_isolation(mut command: Command) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
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
    for dir in SYSTEM_DIRS {
        match fs::read_link(dir) {
            Ok(target) => command.arg("--symlink").arg(target).arg(dir),
            Err(_) => command.args(["--ro-bind-try", dir, dir]),
        };
    }
    command.args(["--proc", "/proc"]);
    for path in MASKED_PATHS.into_iter().filter(|path| Path::new(path).exists()) {
        command.args(["--ro-bind", "/dev/null", path]);
    }
    // Mount `/proc` read-only: a sandbox that runs as the host's root user could otherwise change kernel settings in
    // `/proc/sys`, even without capabilities.
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

/// Starts a sandbox, which keeps running when the server process exits.
pub(super) async fn start(
    launch: &Launch<'_>,
    sandbox_dir: &SandboxDir,
    spec: &Spec,
) -> Result<Child, Error> {
    let shared_dir = launch.shared_files.dir().to_owned();
    let dirs = [
        ("workspace", spec.workspace_dir.clone()),
        ("socket", sandbox_dir.run_dir()),
        ("shared", shared_dir),
    ];
    let (command, [workspace_dir, socket_dir, shared_dir]) = launcher_command(launch, dirs);
    let mut command = add_isolation(command);
    for path in ETC_PATHS {
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
    // Mount `/run` read-only, so that no command can replace the socket to which the guest connects.
    command.args(["--remount-ro", "/run"]);
    command.arg("--bind").arg(workspace_dir).arg("/workspace");
    command.args(["--remount-ro", "/", "--chdir", "/workspace"]);
    let spec_env = spec.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in [("PATH", DEFAULT_PATH)].into_iter().chain(DEFAULT_ENV).chain(spec_env) {
        command.args(["--setenv", name, value]);
    }
    command.args(["--", GUEST_PATH, SOCKET_DIR, &launch.reconnect_timeout.as_millis().to_string()]);
    // With control groups, pass `-` (no limit): the groups already limit the memory of the whole sandbox. Without them,
    // the guest limits the memory of each process.
    let memory = launch.cgroup.map_or_else(|| spec.limits.memory_bytes.to_string(), |_| "-".to_owned());
    command.args([&spec.limits.processes.to_string(), &memory]);
    let log = fs::File::create(sandbox_dir.log_file())?;
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?)
}

/// Checks that a sandbox can be launched with these parameters, by running `/bin/true` in a trial sandbox.
pub(super) async fn check(launch: &Launch<'_>) -> Result<(), Error> {
    let shared_dir = launch.shared_files.dir();
    let dirs = ["workspace", "socket", "shared"].map(|name| (name, shared_dir.to_owned()));
    let (command, _) = launcher_command(launch, dirs);
    let output = add_isolation(command).args(["--", "/bin/true"]).stdin(Stdio::null()).output().await?;
    if output.status.success() {
        Ok(())
    } else {
        Err(error_from_log(&String::from_utf8_lossy(&output.stderr)))
    }
}

/// Returns the reason why a sandbox did not start. The reason is read from the sandbox's log file.
pub(super) fn start_failure(sandbox_dir: &SandboxDir) -> Error {
    error_from_log(&fs::read_to_string(sandbox_dir.log_file()).unwrap_or_default())
}

fn error_from_log(log: &str) -> Error {
    let log: String = log.trim().chars().take(MAX_REASON_CHARS).collect();
    if log.contains("No such file or directory") && log.starts_with("herm-guest:") {
        return Error::NotInstalled;
    }
    if log.starts_with("bwrap:") { Error::NotAllowed(log) } else { Error::NotStarted(log) }
}
