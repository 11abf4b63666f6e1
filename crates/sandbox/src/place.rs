//! Where a sandbox keeps what its server needs to find it again: its socket, its token, its engine.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use herm_guest::protocol::{SOCKET_FILE, TOKEN_FILE};
use herm_types::Rng;
use herm_types::sandbox::SandboxType;

/// The most bytes of a file that is read back.
const MAX_FILE_BYTES: u64 = 256;

/// A sandbox's directory on the host. Only `run/` is mounted into the sandbox, read-only.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    dir: PathBuf,
}

impl Place {
    pub(crate) fn new(sandboxes_dir: &Path, sandbox_id: &str) -> io::Result<Self> {
        let is_sane = !sandbox_id.is_empty()
            && sandbox_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if !is_sane {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{sandbox_id:?} cannot name a sandbox"),
            ));
        }
        Ok(Self { dir: sandboxes_dir.join(sandbox_id) })
    }

    /// The directory of the socket.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    pub(crate) fn sandbox_id(&self) -> &str {
        self.dir.file_name().and_then(OsStr::to_str).unwrap_or_default()
    }

    /// What the engine's programs say at the start.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Writes a file that the sandbox is to have, and that no other has like it; gives its path on the host.
    pub(crate) fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.dir.join(name);
        write_new(&path, text, 0o644)?;
        Ok(path)
    }

    /// Makes the place anew, with a new token: one copy for the guest, one for the servers to come.
    pub(crate) fn prepare(&self, engine: SandboxType, rng: &dyn Rng) -> io::Result<String> {
        self.remove()?;
        fs::create_dir_all(self.run_dir())?;
        // What is in it is for the sandbox's user, who may be another than the server's; nobody else comes so far.
        fs::set_permissions(self.run_dir(), Permissions::from_mode(0o755))?;
        fs::set_permissions(&self.dir, Permissions::from_mode(0o700))?;
        let mut random = [0u8; 16];
        rng.fill(&mut random);
        let token = format!("{:032x}", u128::from_le_bytes(random));
        write_new(&self.dir.join("engine"), engine.as_str(), 0o600)?;
        write_new(&self.run_dir().join(TOKEN_FILE), &token, 0o644)?;
        // Last: with it the place counts as one that a sandbox may live in.
        write_new(&self.token_file(), &token, 0o600)?;
        Ok(token)
    }

    /// The token of a sandbox that an earlier server may have left alive, and its engine.
    pub(crate) fn left(&self) -> Option<(String, SandboxType)> {
        let token = read_short(&self.token_file())?;
        let engine = SandboxType::parse(&read_short(&self.dir.join("engine"))?)?;
        Some((token, engine))
    }

    /// The guest's copy of the token, which goes when the guest has dialled.
    pub(crate) fn guest_token_file(&self) -> PathBuf {
        self.run_dir().join(TOKEN_FILE)
    }

    fn token_file(&self) -> PathBuf {
        self.dir.join("token")
    }

    /// Listens where the guest dials.
    pub(crate) fn listen(&self) -> io::Result<UnixListener> {
        let directory = File::open(self.run_dir())?;
        // A socket's path is short by the kernel's law, a data directory's need not be.
        let path = format!("/proc/self/fd/{}/{SOCKET_FILE}", directory.as_raw_fd());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        // The sandbox's user may be another than the server's.
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // Whatever the process's umask says.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())
}

fn read_short(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(MAX_FILE_BYTES).read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}
