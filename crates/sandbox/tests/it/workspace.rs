//! Tests of the server's access to workspaces whose content is controlled by an attacker.

mod archive;
mod destroy;
mod quota;
mod races;
mod reading;
mod removing;
mod streaming;
mod usage;
mod writing;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use herm_sandbox::workspace::{Workspace, WorkspacePath};
use tempfile::TempDir;

/// The content of a file outside the workspace that the server must never read or change.
const SECRET: &str = "outside the workspace";

/// A workspace, and next to it a directory that must not be reachable through the workspace.
struct Fixture {
    _dir: TempDir,
    inside: PathBuf,
    outside: PathBuf,
    workspace: Workspace,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) = (dir.path().join("workspace"), dir.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), SECRET).unwrap();
    let workspace = Workspace::create(&inside).unwrap();
    Fixture { _dir: dir, inside, outside, workspace }
}

impl Fixture {
    /// Creates symbolic links of all kinds in the workspace: absolute, relative, to a directory, into `/proc`, and one
    /// that refers to itself.
    fn create_links(&self) {
        symlink(self.outside.join("secret"), self.inside.join("to_file")).unwrap();
        symlink(&self.outside, self.inside.join("to_dir")).unwrap();
        symlink("../outside/secret", self.inside.join("relative")).unwrap();
        symlink("/etc/passwd", self.inside.join("passwd")).unwrap();
        symlink("/proc/self/root", self.inside.join("magic")).unwrap();
        symlink("looped", self.inside.join("looped")).unwrap();
    }

    /// Asserts that the directory outside the workspace has not changed.
    fn assert_outside_unchanged(&self) {
        let names: Vec<_> =
            fs::read_dir(&self.outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"]);
        assert_eq!(fs::read_to_string(self.outside.join("secret")).unwrap(), SECRET);
    }
}

fn path(text: &str) -> WorkspacePath {
    WorkspacePath::parse(text).unwrap()
}
