//! The host files that all sandboxes share, such as the guest program and the CA certificates. They are mounted into
//! the sandboxes.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::engine::USER_ID;
use crate::sandboxes::Options;

/// The guest program. It is embedded in the server's executable.
const GUEST: &[u8] = include_bytes!(env!("HERM_GUEST_PROGRAM"));
const HOSTS: &str = "127.0.0.1 localhost sandbox\n::1 localhost\n";

/// Returns the content of `/etc/passwd` for a sandbox. In it, the user `agent` has the id `user_id`.
pub(crate) fn passwd(user_id: u32) -> String {
    format!(
        "root:x:0:0:root:/root:/usr/sbin/nologin\nagent:x:{user_id}:{user_id}:agent:/workspace:/bin/sh\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    )
}

/// Returns the content of `/etc/group` for a sandbox. In it, the group `agent` has the id `group_id`.
pub(crate) fn group(group_id: u32) -> String {
    format!("root:x:0:\nagent:x:{group_id}:\nnogroup:x:65534:\n")
}

/// The number of random bytes in an instance name. Each byte is written as two hexadecimal digits.
const INSTANCE_BYTES: usize = 8;

/// The directory of the files that all sandboxes share, and the server's instance name.
#[derive(Clone, Debug)]
pub(crate) struct SharedFiles {
    dir: PathBuf,
    /// The instance name. It distinguishes this server's sandboxes from those of other servers on the same machine.
    pub(crate) instance: String,
}

impl SharedFiles {
    /// Writes the shared files. Each file is replaced atomically, because running sandboxes may be using the old
    /// version.
    pub(crate) fn write(sandboxes_dir: &Path, options: &Options) -> io::Result<Self> {
        let dir = sandboxes_dir.join(".shared");
        fs::create_dir_all(&dir)?;
        let certificates = &options.certificates;
        let (passwd, group) = (passwd(USER_ID), group(USER_ID));
        let files: [(&str, &[u8], u32); 6] = [
            ("guest", GUEST, 0o755),
            ("passwd", passwd.as_bytes(), 0o644),
            ("group", group.as_bytes(), 0o644),
            ("hosts", HOSTS.as_bytes(), 0o644),
            ("ca-bundle.pem", certificates.bundle.as_bytes(), 0o644),
            ("ca.pem", certificates.proxy.as_bytes(), 0o644),
        ];
        for (name, content, mode) in files {
            write_atomic(&dir.join(name), content, mode)?;
        }
        let instance = instance(&dir.join("instance"), options)?;
        Ok(Self { dir, instance })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

fn write_atomic(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(content)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    drop(file);
    fs::rename(temporary, path)
}

/// Returns the instance name that is stored in the file `path`. On first use, creates a random name and stores it
/// there.
fn instance(path: &Path, options: &Options) -> io::Result<String> {
    let is_name =
        |text: &String| text.len() == 2 * INSTANCE_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match fs::read_to_string(path) {
        Ok(name) if is_name(&name) => return Ok(name),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut random = [0u8; INSTANCE_BYTES];
    options.rng.fill(&mut random);
    let name = format!("{:016x}", u64::from_le_bytes(random));
    write_atomic(path, name.as_bytes(), 0o600)?;
    Ok(name)
}
