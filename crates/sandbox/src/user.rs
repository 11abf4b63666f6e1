//! Chooses the host user that a sandbox's processes run as. A server that runs as root assigns a separate user to each
//! workspace. This user owns nothing else on the host. A process that escapes from a sandbox therefore has no special
//! rights to the host's other files or to other workspaces.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use herm_types::Rng;

use crate::spec::Error;
use crate::workspace::change_owner;

/// The lowest user id that can be assigned to a workspace. Operating systems usually assign lower ids to their users.
const FIRST_UID: u32 = 1 << 30;
/// The number of user ids that can be assigned to workspaces, starting with `FIRST_UID`.
const UID_COUNT: u32 = 1 << 30;

/// Returns true if this server runs as root. Only root can change the owner of a file.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns the user id that is assigned to the workspace. If none is assigned yet, picks a random one and makes that
/// user the owner of the workspace.
pub(crate) fn assign_own_user(workspace_dir: &Path, rng: &dyn Rng) -> Result<u32, Error> {
    let owner = std::fs::metadata(workspace_dir)?.uid();
    if is_assigned_user(owner) {
        return Ok(owner);
    }
    let mut random = [0u8; 4];
    rng.fill(&mut random);
    let user_id = FIRST_UID + u32::from_le_bytes(random) % UID_COUNT;
    change_workspace_owner(workspace_dir, user_id)?;
    Ok(user_id)
}

/// Makes the server's user the owner of a workspace and everything in it.
pub(crate) fn assign_server_user(workspace_dir: &Path) -> Result<(), Error> {
    change_workspace_owner(workspace_dir, rustix::process::geteuid().as_raw())
}

/// Returns true if the user id is in the range of ids that are assigned to workspaces.
pub(crate) fn is_assigned_user(user_id: u32) -> bool {
    (FIRST_UID..FIRST_UID + UID_COUNT).contains(&user_id)
}

fn change_workspace_owner(workspace_dir: &Path, user_id: u32) -> Result<(), Error> {
    change_owner(workspace_dir, user_id).map_err(|error| std::io::Error::other(error).into())
}
