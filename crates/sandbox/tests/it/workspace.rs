//! The host's way to an agent's files, against an agent that is an attacker.

mod archive;
mod destroying;
mod pieces;
mod quota;
mod races;
mod reading;
mod removing;
mod usage;
mod writing;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use herm_sandbox::workspace::{Workspace, WorkspacePath};
use tempfile::TempDir;

/// What nobody may get to through a workspace.
const SECRET: &str = "what lies outside";

/// A workspace, and beside it what it must not lead to.
struct Ground {
    _dir: TempDir,
    inside: PathBuf,
    outside: PathBuf,
    workspace: Workspace,
}

fn ground() -> Ground {
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) = (dir.path().join("workspace"), dir.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), SECRET).unwrap();
    let workspace = Workspace::create(&inside).unwrap();
    Ground { _dir: dir, inside, outside, workspace }
}

impl Ground {
    /// Puts every kind of link there is to the outside.
    fn put_links(&self) {
        symlink(self.outside.join("secret"), self.inside.join("to_file")).unwrap();
        symlink(&self.outside, self.inside.join("to_dir")).unwrap();
        symlink("../outside/secret", self.inside.join("relative")).unwrap();
        symlink("/etc/passwd", self.inside.join("passwd")).unwrap();
        symlink("/proc/self/root", self.inside.join("magic")).unwrap();
        symlink("looped", self.inside.join("looped")).unwrap();
    }

    fn outside_is_as_it_was(&self) {
        let names: Vec<_> =
            fs::read_dir(&self.outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"]);
        assert_eq!(fs::read_to_string(self.outside.join("secret")).unwrap(), SECRET);
    }
}

fn path(text: &str) -> WorkspacePath {
    WorkspacePath::parse(text).unwrap()
}
