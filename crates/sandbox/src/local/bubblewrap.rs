//! What a sandbox is made of: bubblewrap's arguments.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::cgroup::Cgroup;
use crate::engine::{GUEST_PATH, SHM_BYTES, SOCKET_DIR, TMP_BYTES, USER_ID, USUAL_ENV, USUAL_PATH};
use crate::place::Place;
use crate::shared::Shared;
use crate::spec::{Error, Spec};

/// Joins the control groups that it is given, one file each, then becomes bubblewrap: so nothing of the sandbox is
/// ever outside of them.
const JOIN: &str =
    r#"while [ "$1" != -- ]; do echo $$ > "$1" || exit 1; shift; done; shift; exec bwrap "$@""#;
/// The system's directories that commands see, read-only, as far as the host has them.
const SYSTEM: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"];
/// What of `/proc` tells about the whole machine, and is readable for the system's root, who a sandbox's user is to
/// the kernel if the server is.
const MASKED: [&str; 16] = [
    "/proc/config.gz",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/pagetypeinfo",
    "/proc/sched_debug",
    "/proc/slabinfo",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/vmallocinfo",
];
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
pub(super) async fn start(
    shared: &Shared,
    place: &Place,
    spec: &Spec,
    cgroup: Option<&Cgroup>,
    away: Duration,
) -> Result<Child, Error> {
    let mut command = Command::new("sh");
    command.args(["-c", JOIN, "sh"]).args(cgroup.map(Cgroup::join_files).unwrap_or_default()).arg("--");
    let mut command = isolated(command);
    for path in ETC {
        command.args(["--ro-bind-try", path, path]);
    }
    for (name, path) in [("passwd", "/etc/passwd"), ("group", "/etc/group"), ("hosts", "/etc/hosts")] {
        command.arg("--ro-bind").arg(shared.file(name)).arg(path);
    }
    command.args(["--tmpfs", "/run"]);
    for name in ["guest", "ca-bundle.pem", "ca.pem"] {
        command.arg("--ro-bind").arg(shared.file(name)).arg(format!("/run/herm/{name}"));
    }
    command.arg("--ro-bind").arg(place.run_dir()).arg(SOCKET_DIR);
    // Read-only, so that nobody puts a socket of their own where the guest dials.
    command.args(["--remount-ro", "/run"]);
    command.arg("--bind").arg(&spec.workspace_dir).arg("/workspace");
    command.args(["--remount-ro", "/", "--chdir", "/workspace"]);
    let given = spec.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in [("PATH", USUAL_PATH)].into_iter().chain(USUAL_ENV).chain(given) {
        command.args(["--setenv", name, value]);
    }
    command.args(["--", GUEST_PATH, SOCKET_DIR, &away.as_millis().to_string()]);
    // Where the host has control groups they bound the sandbox as a whole, which this cannot.
    let memory = cgroup.map_or_else(|| spec.limits.memory_bytes.to_string(), |_| "-".to_owned());
    command.args([&spec.limits.processes.to_string(), &memory]);
    let log = fs::File::create(place.log_file())?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().map_err(not_started)
}

/// Whether a sandbox can be started here.
pub(super) async fn check() -> Result<(), Error> {
    let output = isolated(Command::new("bwrap"))
        .args(["--", "/bin/true"])
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(not_started)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::NotAllowed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Why a sandbox ended instead of starting, in the words of what ended.
pub(super) fn reason(place: &Place) -> Error {
    let log = fs::read_to_string(place.log_file()).unwrap_or_default();
    let log: String = log.trim().chars().take(500).collect();
    if log.contains("bwrap: not found") {
        return Error::NotInstalled;
    }
    if log.starts_with("bwrap:") { Error::NotAllowed(log) } else { Error::NotStarted(log) }
}

fn not_started(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound { Error::NotInstalled } else { error.into() }
}
