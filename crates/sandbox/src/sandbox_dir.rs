//! The host directory with the files that the server needs to control a sandbox: its socket, the token that
//! authenticates its guest, and the name of its engine. A restarted server uses them to find the sandbox again.

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

/// The maximum number of bytes to read from each of the files `token` and `engine`. Further bytes are ignored.
const MAX_FILE_BYTES: u64 = 256;

/// A sandbox's directory on the host. Only its subdirectory `run` is mounted into the sandbox, read-only.
#[derive(Clone, Debug)]
pub(crate) struct SandboxDir {
    dir: PathBuf,
}

impl SandboxDir {
    pub(crate) fn new(sandboxes_dir: &Path, sandbox_id: &str) -> io::Result<Self> {
        let is_valid = !sandbox_id.is_empty()
            && sandbox_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if !is_valid {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{sandbox_id:?} is not a valid sandbox id"),
            ));
        }
        Ok(Self { dir: sandboxes_dir.join(sandbox_id) })
    }

    /// Returns the subdirectory that contains the socket. It is mounted into the sandbox.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    pub(crate) fn sandbox_id(&self) -> &str {
        self.dir.file_name().and_then(OsStr::to_str).unwrap_or_default()
    }

    /// Returns the path of the log file, which contains the standard error output of bubblewrap and the guest.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Writes a new file into the sandbox's directory and returns the file's path on the host.
    pub(crate) fn write_file(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.dir.join(name);
        write_new(&path, text, 0o644)?;
        Ok(path)
    }

    /// Creates the sandbox's directory, replacing an existing one, and returns a new guest token. The token is written
    /// to two files: one for the guest, and one for a restarted server.
    pub(crate) fn prepare(&self, engine: SandboxType, rng: &dyn Rng) -> io::Result<String> {
        self.remove()?;
        fs::create_dir_all(self.run_dir())?;
        // Make `run` accessible to every user, because the sandbox's user may differ from the server's user. Other
        // users of the host still cannot reach `run`, because its parent directory is private.
        fs::set_permissions(self.run_dir(), Permissions::from_mode(0o755))?;
        fs::set_permissions(&self.dir, Permissions::from_mode(0o700))?;
        let mut random = [0u8; 16];
        rng.fill(&mut random);
        let token = format!("{:032x}", u128::from_le_bytes(random));
        write_new(&self.dir.join("engine"), engine.as_str(), 0o600)?;
        write_new(&self.run_dir().join(TOKEN_FILE), &token, 0o644)?;
        // Write this file last: `find_existing` ignores a directory without it, and thus ignores incomplete
        // directories.
        write_new(&self.token_file(), &token, 0o600)?;
        Ok(token)
    }

    /// Returns the guest token and the engine of a sandbox that a previous server process may have left running.
    /// Returns `None` if the sandbox's directory does not exist or is incomplete.
    pub(crate) fn find_existing(&self) -> Option<(String, SandboxType)> {
        let token = read_short(&self.token_file())?;
        let engine = SandboxType::parse(&read_short(&self.dir.join("engine"))?)?;
        Some((token, engine))
    }

    /// Returns the path of the token file that the guest reads. The server deletes this file when the guest connects.
    pub(crate) fn guest_token_file(&self) -> PathBuf {
        self.run_dir().join(TOKEN_FILE)
    }

    fn token_file(&self) -> PathBuf {
        self.dir.join("token")
    }

    /// Creates the socket to which the guest connects. Replaces a socket that already exists.
    pub(crate) fn listen(&self) -> io::Result<UnixListener> {
        let directory = File::open(self.run_dir())?;
        // Use a short path that goes through the directory's file descriptor: the kernel limits a socket's path to
        // about 100 bytes, and the path of the data directory may be longer.
        let path = format!("/proc/self/fd/{}/{SOCKET_FILE}", directory.as_raw_fd());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        // Allow every user to connect, because the sandbox's user may differ from the server's user.
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
    // Set the mode explicitly, because the umask removes permissions from the mode that is given to `open`.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())
}

fn read_short(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(MAX_FILE_BYTES).read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}
