//! Where a sandbox keeps what its server needs to find it again: its socket, its token.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use herm_types::Rng;

/// The most bytes of a token's file.
const MAX_TOKEN_BYTES: u64 = 256;

/// A sandbox's directory on the host. Only `run/` is mounted into the sandbox, read-only.
#[derive(Clone, Debug)]
pub(super) struct Place {
    dir: PathBuf,
}

impl Place {
    pub(super) fn new(sandboxes_dir: &Path, sandbox_id: &str) -> io::Result<Self> {
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
    pub(super) fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// Makes the place anew, with a new token.
    pub(super) fn prepare(&self, rng: &dyn Rng) -> io::Result<String> {
        self.remove()?;
        fs::create_dir_all(self.run_dir())?;
        fs::set_permissions(&self.dir, Permissions::from_mode(0o700))?;
        let mut random = [0u8; 16];
        rng.fill(&mut random);
        let token = format!("{:032x}", u128::from_le_bytes(random));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.token_file())?;
        file.write_all(token.as_bytes())?;
        Ok(token)
    }

    /// The token of a sandbox that an earlier server may have left alive.
    pub(super) fn token(&self) -> Option<String> {
        let mut token = String::new();
        File::open(self.token_file()).ok()?.take(MAX_TOKEN_BYTES).read_to_string(&mut token).ok()?;
        (!token.is_empty()).then_some(token)
    }

    fn token_file(&self) -> PathBuf {
        self.dir.join("token")
    }

    /// Listens where the guest dials.
    pub(super) fn listen(&self) -> io::Result<UnixListener> {
        let directory = File::open(self.run_dir())?;
        // A socket's path is short by the kernel's law, a data directory's need not be.
        let path = format!("/proc/self/fd/{}/guest.sock", directory.as_raw_fd());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
