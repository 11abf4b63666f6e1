//! What a sandbox is made of: bubblewrap's arguments.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use super::{Error, Spec};

/// How long a sandbox may take to start.
pub(super) const START_LIMIT: Duration = Duration::from_secs(20);
/// The guest, as it is carried in the server.
const GUEST: &[u8] = include_bytes!(env!("HERM_GUEST_PROGRAM"));
/// Who commands run as, inside.
const USER_ID: &str = "1000";
/// Where commands look for programs.
const USUAL_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// The system's directories that commands see, read-only, as far as the host has them.
const SYSTEM: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"];
/// Sizes of the directories that live in memory.
const TMP_BYTES: &str = "536870912";
const SHM_BYTES: &str = "67108864";
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
const PASSWD: &str = "root:x:0:0:root:/root:/usr/sbin/nologin\nagent:x:1000:1000:agent:/workspace:/bin/sh\n";
const GROUP: &str = "root:x:0:\nagent:x:1000:\n";
const HOSTS: &str = "127.0.0.1 localhost sandbox\n::1 localhost\n";

/// The files that every sandbox shares, on the host.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    dir: PathBuf,
}

impl Shared {
    /// Writes the files: whole or not at all, as a sandbox may be using the old ones.
    pub(super) fn write(sandboxes_dir: &Path) -> io::Result<Self> {
        let dir = sandboxes_dir.join(".shared");
        fs::create_dir_all(&dir)?;
        let files: [(&str, &[u8], u32); 4] = [
            ("guest", GUEST, 0o755),
            ("passwd", PASSWD.as_bytes(), 0o644),
            ("group", GROUP.as_bytes(), 0o644),
            ("hosts", HOSTS.as_bytes(), 0o644),
        ];
        for (name, content, mode) in files {
            let temporary = dir.join(format!("{name}.new"));
            let mut file = fs::File::create(&temporary)?;
            file.write_all(content)?;
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            drop(file);
            fs::rename(temporary, dir.join(name))?;
        }
        Ok(Self { dir })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

fn isolated() -> Command {
    let mut command = Command::new("bwrap");
    let path = std::env::var_os("PATH").unwrap_or_else(|| USUAL_PATH.into());
    command
        .env_clear()
        .env("PATH", path)
        .args([
            "--unshare-all",
            "--unshare-user",
            "--uid",
            USER_ID,
            "--gid",
            USER_ID,
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
    command.args(["--dev", "/dev", "--size", SHM_BYTES, "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]);
    command.args(["--size", TMP_BYTES, "--tmpfs", "/tmp"]);
    command
}

/// Starts a sandbox. It is not ended with this process.
pub(super) async fn start(
    shared: &Shared,
    run_dir: &Path,
    spec: &Spec,
    token: &str,
    away: Duration,
) -> Result<Child, Error> {
    let mut command = isolated();
    for path in ETC {
        command.args(["--ro-bind-try", path, path]);
    }
    for (name, path) in [("passwd", "/etc/passwd"), ("group", "/etc/group"), ("hosts", "/etc/hosts")] {
        command.arg("--ro-bind").arg(shared.file(name)).arg(path);
    }
    command.args(["--tmpfs", "/run"]).arg("--ro-bind").arg(shared.file("guest")).arg("/run/herm/guest");
    command.arg("--ro-bind").arg(run_dir).arg("/run/herm/socket");
    // Read-only, so that nobody puts a socket of their own where the guest dials.
    command.args(["--remount-ro", "/run"]);
    command.arg("--bind").arg(&spec.workspace_dir).arg("/workspace");
    command.args(["--remount-ro", "/", "--chdir", "/workspace"]);
    let usual = [
        ("PATH", USUAL_PATH),
        ("HOME", "/workspace"),
        ("USER", "agent"),
        ("LANG", "C.UTF-8"),
        ("TERM", "dumb"),
    ];
    for (name, value) in usual {
        command.args(["--setenv", name, value]);
    }
    for (name, value) in &spec.env {
        command.args(["--setenv", name, value]);
    }
    command.args(["--", "/run/herm/guest", "/run/herm/socket/guest.sock", &away.as_millis().to_string()]);
    let log = fs::File::create(run_dir.with_file_name("bwrap.log"))?;
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn().map_err(not_started)?;
    if let Some(mut stdin) = child.stdin.take() {
        // If it has ended already, its status says why.
        let _ = stdin.write_all(format!("{token}\n").as_bytes()).await;
    }
    Ok(child)
}

/// Whether a sandbox can be started here.
pub(super) async fn check() -> Result<(), Error> {
    let output =
        isolated().args(["--", "/bin/true"]).stdin(Stdio::null()).output().await.map_err(not_started)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::NotAllowed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Why bubblewrap ended instead of starting a sandbox, in its own words.
pub(super) fn reason(run_dir: &Path) -> Error {
    let log = fs::read_to_string(run_dir.with_file_name("bwrap.log")).unwrap_or_default();
    Error::NotAllowed(log.trim().chars().take(500).collect())
}

fn not_started(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound { Error::NotInstalled } else { error.into() }
}
