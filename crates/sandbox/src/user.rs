//! Who a sandbox is to the host's kernel. A server that is root gives each workspace a user of its own, whom nothing
//! else on the machine belongs to: what breaks out of a sandbox is then nobody, and not another sandbox either.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use herm_types::Rng;

use crate::spec::Error;
use crate::workspace::give_to;

/// The users that are given: half of the numbers there are, above those that systems use.
const FIRST: u32 = 1 << 30;
const COUNT: u32 = 1 << 30;

/// Whether this server can make others the owners of files.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Gives a workspace to a user of its own, once; its number is the directory's owner from then on.
pub(crate) fn of_its_own(workspace_dir: &Path, rng: &dyn Rng) -> Result<u32, Error> {
    let owner = std::fs::metadata(workspace_dir)?.uid();
    if is_given(owner) {
        return Ok(owner);
    }
    let mut random = [0u8; 4];
    rng.fill(&mut random);
    let user_id = FIRST + u32::from_le_bytes(random) % COUNT;
    give(workspace_dir, user_id)?;
    Ok(user_id)
}

/// Gives a workspace to this server's own user.
pub(crate) fn of_the_server(workspace_dir: &Path) -> Result<(), Error> {
    give(workspace_dir, rustix::process::geteuid().as_raw())
}

/// Whether this user was given to a workspace.
pub(crate) fn is_given(user_id: u32) -> bool {
    (FIRST..FIRST + COUNT).contains(&user_id)
}

fn give(workspace_dir: &Path, user_id: u32) -> Result<(), Error> {
    give_to(workspace_dir, user_id).map_err(|error| std::io::Error::other(error).into())
}
