use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use herm_sandbox::workspace::Workspace;
use rustix::fs::{Mode, OFlags, chmodat, mkdirat, openat, renameat, symlinkat};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Ground, ground};

/// Levels of a deep tree: more than there may be descriptors, and longer than any path.
const DEPTH: usize = 3_000;
/// Who is nobody on this machine, and has no rights beyond its own.
const NOBODY: u32 = 65534;

fn open_directory(parent: &OwnedFd, name: &str) -> OwnedFd {
    openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// Makes a tree from its bottom up, as no path is long enough to go down: each level holds a file, a link to the
/// outside and the levels below, and may not be entered.
fn make_deep(ground: &Ground, depth: usize) {
    let root = rustix::fs::open(&ground.inside, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    mkdirat(&root, "d", Mode::RWXU).unwrap();
    for _ in 0..depth {
        mkdirat(&root, "above", Mode::RWXU).unwrap();
        let above = open_directory(&root, "above");
        symlinkat(&ground.outside, &above, "link").unwrap();
        openat(&above, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        renameat(&root, "d", &above, "d").unwrap();
        chmodat(&above, "d", Mode::empty(), rustix::fs::AtFlags::empty()).unwrap();
        renameat(&root, "above", &root, "d").unwrap();
    }
    chmodat(&root, "d", Mode::empty(), rustix::fs::AtFlags::empty()).unwrap();
}

fn set_open_files(most: u64) {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum }).unwrap();
}

/// Runs a test of this program once more, in a process of its own, as somebody without rights.
pub(super) fn run_as_nobody(name: &str, dir: &Path) {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", name, "--nocapture"]).env("HERM_TEST_DIR", dir).current_dir("/");
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// As root no directory is closed, and with many descriptors no depth is deep: so this runs as nobody, with few.
#[test]
fn a_deep_tree_of_closed_directories_goes_whole_and_the_outside_stays() {
    let Some(dir) = std::env::var_os("HERM_TEST_DIR") else {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        return run_as_nobody(
            "workspace::destroying::a_deep_tree_of_closed_directories_goes_whole_and_the_outside_stays",
            dir.path(),
        );
    };
    // What is made here goes with the directory that was given.
    let dir = Path::new(&dir);
    assert!(!rustix::process::geteuid().is_root());
    let ground = Ground {
        _dir: tempfile::tempdir_in(dir).unwrap(),
        inside: dir.join("workspace"),
        outside: dir.join("outside"),
        workspace: Workspace::create(&dir.join("workspace")).unwrap(),
    };
    fs::create_dir(&ground.outside).unwrap();
    fs::write(ground.outside.join("secret"), super::SECRET).unwrap();
    make_deep(&ground, DEPTH);
    assert_eq!(fs::metadata(ground.inside.join("d")).unwrap().permissions().mode() & 0o777, 0);
    set_open_files(32);
    Workspace::destroy(&ground.inside).unwrap();
    assert!(!ground.inside.exists());
    ground.outside_is_as_it_was();
    // Nor were its permissions touched through a link.
    assert_ne!(fs::metadata(&ground.outside).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn what_is_not_there_is_removed_already() {
    let ground = ground();
    Workspace::destroy(&ground.inside).unwrap();
    Workspace::destroy(&ground.inside).unwrap();
    assert!(!ground.inside.exists());
    ground.outside_is_as_it_was();
}

#[test]
fn a_wide_tree_goes_whole() {
    let ground = ground();
    ground.put_links();
    for number in 0..300 {
        let dir = ground.inside.join(format!("{}/{}/{number}", number % 7, number % 11));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("file"), "x").unwrap();
        symlink(&ground.outside, dir.join("link")).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o0)).unwrap();
    }
    Workspace::destroy(&ground.inside).unwrap();
    assert!(!ground.inside.exists());
    ground.outside_is_as_it_was();
}

#[test]
fn two_that_remove_the_same_workspace_both_succeed() {
    for _ in 0..crate::rounds(20) {
        let ground = ground();
        make_deep(&ground, 40);
        std::thread::scope(|scope| {
            let both = [(); 3].map(|()| scope.spawn(|| Workspace::destroy(&ground.inside)));
            for one in both {
                one.join().unwrap().unwrap();
            }
        });
        assert!(!ground.inside.exists());
        ground.outside_is_as_it_was();
    }
}
