//! Files and directories that are removed one by one.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use herm_sandbox::workspace::Error;
use herm_types::file::{EntityTags, Precondition};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};

use super::{Ground, ground, path};

fn remove(ground: &Ground, name: &str) -> Result<(), Error> {
    ground.workspace.remove(&path(name), &Precondition::default())
}

#[test]
fn a_directory_goes_whole_and_what_its_links_lead_to_stays() {
    let ground = ground();
    fs::create_dir_all(ground.inside.join("a/b/c")).unwrap();
    fs::write(ground.inside.join("a/b/file"), "x").unwrap();
    symlink(&ground.outside, ground.inside.join("a/b/c/link")).unwrap();
    mknodat(CWD, ground.inside.join("a/fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    fs::set_permissions(ground.inside.join("a/b"), fs::Permissions::from_mode(0o0)).unwrap();
    fs::write(ground.inside.join("keep"), "x").unwrap();
    remove(&ground, "a").unwrap();
    assert!(matches!(remove(&ground, "a"), Err(Error::NotFound)));
    assert!(matches!(remove(&ground, ""), Err(Error::IsRoot)));
    assert!(matches!(remove(&ground, "keep/below"), Err(Error::NotADirectory)));
    assert_eq!(fs::read_dir(&ground.inside).unwrap().count(), 1);
    remove(&ground, "keep").unwrap();
    assert_eq!(fs::read_dir(&ground.inside).unwrap().count(), 0);
    ground.outside_is_as_it_was();
}

#[test]
fn nothing_is_removed_through_a_link_nor_a_link_itself() {
    let ground = ground();
    ground.put_links();
    for way in ["to_file", "to_dir", "to_dir/secret", "relative", "magic/tmp", "looped"] {
        let removed = remove(&ground, way);
        assert!(matches!(removed, Err(Error::Symlink | Error::NotADirectory)), "{way}: {removed:?}");
    }
    assert_eq!(fs::read_dir(&ground.inside).unwrap().count(), 6);
    ground.outside_is_as_it_was();
}

#[test]
fn a_file_that_was_changed_since_it_was_seen_stays() {
    let ground = ground();
    ground.workspace.write_atomic(&path("file"), b"one", 9).unwrap();
    let etag = ground.workspace.open_read(&path("file")).unwrap().etag;
    let seen = Precondition { if_match: Some(EntityTags::OneOf(vec![etag])), if_none_match: None };
    ground.workspace.write_atomic(&path("file"), b"two", 9).unwrap();
    assert!(matches!(ground.workspace.remove(&path("file"), &seen), Err(Error::Precondition)));
    assert_eq!(fs::read_to_string(ground.inside.join("file")).unwrap(), "two");
}

/// The agent swaps the directory for a link to the outside while it is removed, again and again.
#[test]
fn a_directory_that_becomes_a_link_leads_nowhere() {
    let ground = ground();
    let (directory, link) = (ground.inside.join("d"), ground.inside.join("link"));
    symlink(&ground.outside, &link).unwrap();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::SeqCst) {
                // The directory is away in between.
                let _ = renameat_with(CWD, &directory, CWD, &link, RenameFlags::EXCHANGE);
            }
        });
        for round in 0..crate::rounds(300) {
            let _ = fs::create_dir_all(ground.inside.join("d/e"));
            let _ = fs::write(ground.inside.join("d/e/secret"), round.to_string());
            // Which of the two it met is all the same.
            let _ = remove(&ground, "d/e/secret");
            let _ = remove(&ground, "d");
        }
        is_done.store(true, Ordering::SeqCst);
    });
    assert!(ground.outside.join("secret").exists());
}
