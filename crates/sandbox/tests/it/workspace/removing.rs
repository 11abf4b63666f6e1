//! Tests of removing single files and directories from a workspace.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use herm_sandbox::workspace::Error;
use herm_types::file::{EntityTags, Precondition};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};

use super::{Fixture, fixture, path};

fn remove(fixture: &Fixture, name: &str) -> Result<(), Error> {
    fixture.workspace.remove(&path(name), &Precondition::default())
}

#[test]
fn a_directory_is_removed_and_the_targets_of_its_links_are_kept() {
    let fixture = fixture();
    fs::create_dir_all(fixture.inside.join("a/b/c")).unwrap();
    fs::write(fixture.inside.join("a/b/file"), "x").unwrap();
    symlink(&fixture.outside, fixture.inside.join("a/b/c/link")).unwrap();
    mknodat(CWD, fixture.inside.join("a/fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    fs::set_permissions(fixture.inside.join("a/b"), fs::Permissions::from_mode(0o0)).unwrap();
    fs::write(fixture.inside.join("keep"), "x").unwrap();
    remove(&fixture, "a").unwrap();
    assert!(matches!(remove(&fixture, "a"), Err(Error::NotFound)));
    assert!(matches!(remove(&fixture, ""), Err(Error::IsRoot)));
    assert!(matches!(remove(&fixture, "keep/below"), Err(Error::NotADirectory)));
    assert_eq!(fs::read_dir(&fixture.inside).unwrap().count(), 1);
    remove(&fixture, "keep").unwrap();
    assert_eq!(fs::read_dir(&fixture.inside).unwrap().count(), 0);
    fixture.assert_outside_unchanged();
}

#[test]
fn links_are_neither_followed_nor_removed() {
    let fixture = fixture();
    fixture.create_links();
    for link_path in ["to_file", "to_dir", "to_dir/secret", "relative", "magic/tmp", "looped"] {
        let removed = remove(&fixture, link_path);
        assert!(matches!(removed, Err(Error::Symlink | Error::NotADirectory)), "{link_path}: {removed:?}");
    }
    assert_eq!(fs::read_dir(&fixture.inside).unwrap().count(), 6);
    fixture.assert_outside_unchanged();
}

#[test]
fn a_file_that_was_changed_after_it_was_read_is_not_removed() {
    let fixture = fixture();
    fixture.workspace.write_atomic(&path("file"), b"one", 9).unwrap();
    let etag = fixture.workspace.open_read(&path("file")).unwrap().etag;
    let seen = Precondition { if_match: Some(EntityTags::OneOf(vec![etag])), if_none_match: None };
    fixture.workspace.write_atomic(&path("file"), b"two", 9).unwrap();
    assert!(matches!(fixture.workspace.remove(&path("file"), &seen), Err(Error::Precondition)));
    assert_eq!(fs::read_to_string(fixture.inside.join("file")).unwrap(), "two");
}

/// Simulates an agent that, during the removal of a directory, repeatedly swaps the directory for a link that leads
/// outside the workspace.
#[test]
fn removing_a_directory_swapped_for_a_link_does_not_lead_outside() {
    let fixture = fixture();
    let (directory, link) = (fixture.inside.join("d"), fixture.inside.join("link"));
    symlink(&fixture.outside, &link).unwrap();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::SeqCst) {
                // Ignore errors: the swap fails while the directory does not exist.
                let _ = renameat_with(CWD, &directory, CWD, &link, RenameFlags::EXCHANGE);
            }
        });
        for round in 0..crate::rounds(300) {
            let _ = fs::create_dir_all(fixture.inside.join("d/e"));
            let _ = fs::write(fixture.inside.join("d/e/secret"), round.to_string());
            // Ignore errors: the removal may encounter the link instead of the directory.
            let _ = remove(&fixture, "d/e/secret");
            let _ = remove(&fixture, "d");
        }
        is_done.store(true, Ordering::SeqCst);
    });
    assert!(fixture.outside.join("secret").exists());
}
