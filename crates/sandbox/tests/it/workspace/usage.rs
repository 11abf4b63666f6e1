use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use herm_sandbox::workspace::{Error, Workspace, WorkspacePath, usage};
use rustix::fs::{Mode, OFlags, mkdirat, openat, renameat};

use super::{ground, path};

const SIZE: u64 = 1024 * 1024;

fn write(path: &Path) {
    let file = File::create(path).unwrap();
    fs::write(path, vec![1; usize::try_from(SIZE).unwrap()]).unwrap();
    // Some file systems know what a file takes when it is on the disk.
    file.sync_all().unwrap();
}

/// Directories and links take a little themselves.
fn is_about(found: u64, files: u64) -> bool {
    (files * SIZE..files * SIZE + SIZE / 2).contains(&found)
}

#[test]
fn what_has_several_names_counts_once_and_what_is_linked_to_does_not() {
    let ground = ground();
    assert!(is_about(usage(&ground.inside).unwrap(), 0));
    fs::create_dir_all(ground.inside.join("a/b")).unwrap();
    write(&ground.inside.join("one"));
    write(&ground.inside.join("a/b/two"));
    assert!(is_about(usage(&ground.inside).unwrap(), 2));
    fs::hard_link(ground.inside.join("one"), ground.inside.join("a/one too")).unwrap();
    write(&ground.outside.join("large"));
    symlink(&ground.outside, ground.inside.join("out")).unwrap();
    symlink("looped", ground.inside.join("looped")).unwrap();
    symlink("/proc/self/root", ground.inside.join("magic")).unwrap();
    assert!(is_about(usage(&ground.inside).unwrap(), 2));
    assert_eq!(usage(&ground.inside.join("never made")).unwrap(), 0);
}

#[test]
fn holes_take_nothing() {
    let ground = ground();
    let sparse = File::create(ground.inside.join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    assert!(is_about(usage(&ground.inside).unwrap(), 0));
}

#[test]
fn a_tree_that_was_made_to_take_long_is_not_measured_to_its_end() {
    let ground = ground();
    let root = rustix::fs::open(&ground.inside, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    mkdirat(&root, "d", Mode::RWXU).unwrap();
    for _ in 0..1_000 {
        mkdirat(&root, "above", Mode::RWXU).unwrap();
        let above = openat(&root, "above", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        renameat(&root, "d", &above, "d").unwrap();
        renameat(&root, "above", &root, "d").unwrap();
    }
    assert!(matches!(usage(&ground.inside), Err(Error::TooMuch)));
}

#[test]
fn a_write_frees_what_it_replaces_if_nothing_else_keeps_it() {
    let ground = ground();
    write(&ground.inside.join("one"));
    let freed = |text: &str| ground.workspace.freed_by_write(&path(text)).unwrap();
    assert_eq!(freed("one"), fs::metadata(ground.inside.join("one")).unwrap().blocks() * 512);
    assert_eq!((freed("none"), freed("none/below"), freed("")), (0, 0, 0));
    fs::hard_link(ground.inside.join("one"), ground.inside.join("two")).unwrap();
    assert_eq!(freed("one"), 0);
    symlink("one", ground.inside.join("link")).unwrap();
    assert_eq!(freed("link"), 0);
    let nobody = Workspace::create(&ground.inside.join("sub")).unwrap();
    assert_eq!(nobody.freed_by_write(&WorkspacePath::parse("x").unwrap()).unwrap(), 0);
}
