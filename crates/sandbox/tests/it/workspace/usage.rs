use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use herm_sandbox::workspace::{Error, Workspace, WorkspacePath, usage};
use rustix::fs::{Mode, OFlags, mkdirat, openat, renameat};

use super::{fixture, path};

const SIZE: u64 = 1024 * 1024;

fn write(path: &Path) {
    let file = File::create(path).unwrap();
    fs::write(path, vec![1; usize::try_from(SIZE).unwrap()]).unwrap();
    // Sync the file: some file systems do not count a file's blocks before that.
    file.sync_all().unwrap();
}

/// Returns true if `usage` is about the disk usage of `files` files of `SIZE` bytes each. Directories and links may add
/// a little.
fn is_about(usage: u64, files: u64) -> bool {
    (files * SIZE..files * SIZE + SIZE / 2).contains(&usage)
}

#[test]
fn hard_links_count_once_and_targets_of_symbolic_links_do_not_count() {
    let fixture = fixture();
    assert!(is_about(usage(&fixture.inside).unwrap(), 0));
    fs::create_dir_all(fixture.inside.join("a/b")).unwrap();
    write(&fixture.inside.join("one"));
    write(&fixture.inside.join("a/b/two"));
    assert!(is_about(usage(&fixture.inside).unwrap(), 2));
    fs::hard_link(fixture.inside.join("one"), fixture.inside.join("a/one too")).unwrap();
    write(&fixture.outside.join("large"));
    symlink(&fixture.outside, fixture.inside.join("out")).unwrap();
    symlink("looped", fixture.inside.join("looped")).unwrap();
    symlink("/proc/self/root", fixture.inside.join("magic")).unwrap();
    assert!(is_about(usage(&fixture.inside).unwrap(), 2));
    assert_eq!(usage(&fixture.inside.join("never made")).unwrap(), 0);
}

#[test]
fn holes_use_no_space() {
    let fixture = fixture();
    let sparse = File::create(fixture.inside.join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    assert!(is_about(usage(&fixture.inside).unwrap(), 0));
}

#[test]
fn a_deeply_nested_tree_is_not_measured() {
    let fixture = fixture();
    let root = rustix::fs::open(&fixture.inside, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    mkdirat(&root, "d", Mode::RWXU).unwrap();
    for _ in 0..1_000 {
        mkdirat(&root, "above", Mode::RWXU).unwrap();
        let above = openat(&root, "above", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        renameat(&root, "d", &above, "d").unwrap();
        renameat(&root, "above", &root, "d").unwrap();
    }
    assert!(matches!(usage(&fixture.inside), Err(Error::TooManyToMeasure)));
}

#[test]
fn a_write_frees_the_replaced_file_unless_it_has_other_hard_links() {
    let fixture = fixture();
    write(&fixture.inside.join("one"));
    let freed = |text: &str| fixture.workspace.freed_by_write(&path(text)).unwrap();
    assert_eq!(freed("one"), fs::metadata(fixture.inside.join("one")).unwrap().blocks() * 512);
    assert_eq!((freed("none"), freed("none/below"), freed("")), (0, 0, 0));
    fs::hard_link(fixture.inside.join("one"), fixture.inside.join("two")).unwrap();
    assert_eq!(freed("one"), 0);
    symlink("one", fixture.inside.join("link")).unwrap();
    assert_eq!(freed("link"), 0);
    let empty = Workspace::create(&fixture.inside.join("sub")).unwrap();
    assert_eq!(empty.freed_by_write(&WorkspacePath::parse("x").unwrap()).unwrap(), 0);
}
