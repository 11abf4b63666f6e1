use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use herm_sandbox::workspace::Workspace;
use rustix::fs::{Mode, OFlags, chmodat, mkdirat, openat, renameat, symlinkat};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Fixture, fixture};

/// The depth of the deep directory tree. It exceeds the limit on open file descriptors and makes paths longer than the
/// kernel allows.
const DEPTH: usize = 3_000;
/// The id of the unprivileged user `nobody`.
const NOBODY: u32 = 65534;

fn open_directory(parent: &OwnedFd, name: &str) -> OwnedFd {
    openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// Creates a deep directory tree from the bottom up: from the top down, the paths would become too long. Each directory
/// contains a file, a symbolic link to the directory outside the workspace, and the next directory. The directories'
/// permission bits are all cleared.
fn create_deep_tree(fixture: &Fixture, depth: usize) {
    let root = rustix::fs::open(&fixture.inside, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    mkdirat(&root, "d", Mode::RWXU).unwrap();
    for _ in 0..depth {
        mkdirat(&root, "above", Mode::RWXU).unwrap();
        let above = open_directory(&root, "above");
        symlinkat(&fixture.outside, &above, "link").unwrap();
        openat(&above, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        renameat(&root, "d", &above, "d").unwrap();
        chmodat(&above, "d", Mode::empty(), rustix::fs::AtFlags::empty()).unwrap();
        renameat(&root, "above", &root, "d").unwrap();
    }
    chmodat(&root, "d", Mode::empty(), rustix::fs::AtFlags::empty()).unwrap();
}

fn set_open_files(max: u64) {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(max), maximum: limit.maximum }).unwrap();
}

/// Runs one test of this test program in a separate process, as an unprivileged user.
pub(super) fn run_as_nobody(name: &str, dir: &Path) {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", name, "--nocapture"]).env("HERM_TEST_DIR", dir).current_dir("/");
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{stdout}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs as the user `nobody`, because file permissions do not restrict root. The limit on open file descriptors is so
/// low that the removal would fail if it needed one descriptor per level.
#[test]
fn a_deep_tree_without_permissions_is_removed_and_the_outside_is_unchanged() {
    let Some(dir) = std::env::var_os("HERM_TEST_DIR") else {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        return run_as_nobody(
            "workspace::destroy::a_deep_tree_without_permissions_is_removed_and_the_outside_is_unchanged",
            dir.path(),
        );
    };
    // The parent process created this directory and deletes it after the test.
    let dir = Path::new(&dir);
    assert!(!rustix::process::geteuid().is_root());
    let fixture = Fixture {
        _dir: tempfile::tempdir_in(dir).unwrap(),
        inside: dir.join("workspace"),
        outside: dir.join("outside"),
        workspace: Workspace::create(&dir.join("workspace")).unwrap(),
    };
    fs::create_dir(&fixture.outside).unwrap();
    fs::write(fixture.outside.join("secret"), super::SECRET).unwrap();
    create_deep_tree(&fixture, DEPTH);
    assert_eq!(fs::metadata(fixture.inside.join("d")).unwrap().permissions().mode() & 0o777, 0);
    set_open_files(32);
    Workspace::destroy(&fixture.inside).unwrap();
    assert!(!fixture.inside.exists());
    fixture.assert_outside_unchanged();
    // The removal has not changed the permissions of the directory outside the workspace.
    assert_ne!(fs::metadata(&fixture.outside).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn destroying_a_missing_workspace_succeeds() {
    let fixture = fixture();
    Workspace::destroy(&fixture.inside).unwrap();
    Workspace::destroy(&fixture.inside).unwrap();
    assert!(!fixture.inside.exists());
    fixture.assert_outside_unchanged();
}

#[test]
fn a_wide_tree_is_removed() {
    let fixture = fixture();
    fixture.create_links();
    for number in 0..300 {
        let dir = fixture.inside.join(format!("{}/{}/{number}", number % 7, number % 11));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("file"), "x").unwrap();
        symlink(&fixture.outside, dir.join("link")).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o0)).unwrap();
    }
    Workspace::destroy(&fixture.inside).unwrap();
    assert!(!fixture.inside.exists());
    fixture.assert_outside_unchanged();
}

#[test]
fn concurrent_calls_to_destroy_all_succeed() {
    for _ in 0..crate::rounds(20) {
        let fixture = fixture();
        create_deep_tree(&fixture, 40);
        std::thread::scope(|scope| {
            let threads = [(); 3].map(|()| scope.spawn(|| Workspace::destroy(&fixture.inside)));
            for thread in threads {
                thread.join().unwrap().unwrap();
            }
        });
        assert!(!fixture.inside.exists());
        fixture.assert_outside_unchanged();
    }
}
