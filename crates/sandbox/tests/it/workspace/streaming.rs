//! Tests of files that are written in chunks, including writes that are never finished.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use herm_sandbox::workspace::{Error, OnLink};
use herm_types::file::{EntityTags, Precondition};
use rustix::fs::{FlockOperation, flock};

use super::{fixture, path};

const LIMIT: u64 = 1024;

fn precondition(if_match: Option<EntityTags>, if_none_match: Option<EntityTags>) -> Precondition {
    Precondition { if_match, if_none_match }
}

fn always() -> Precondition {
    Precondition::default()
}

#[test]
fn a_file_written_in_chunks_is_visible_only_after_commit() {
    let fixture = fixture();
    let mut pending = fixture.workspace.begin_write(&path("a/file"), LIMIT).unwrap();
    pending.write(b"one ").unwrap();
    pending.write(b"two").unwrap();
    assert!(matches!(fixture.workspace.open_read(&path("a/file")), Err(Error::NotFound)));
    let written = pending.commit(&always(), OnLink::Refuse).unwrap();
    assert_eq!(written.size, 7);
    assert_eq!(fs::read_to_string(fixture.inside.join("a/file")).unwrap(), "one two");
    let read = fixture.workspace.open_read(&path("a/file")).unwrap();
    assert_eq!((read.etag, read.modified_at), (written.etag, written.modified_at));
}

/// An unfinished unnamed file disappears when the server process is killed.
#[test]
fn an_unfinished_file_has_no_name() {
    let fixture = fixture();
    let mut pending = fixture.workspace.begin_write(&path("file"), LIMIT).unwrap();
    pending.write(b"half").unwrap();
    assert_eq!(fs::read_dir(&fixture.inside).unwrap().count(), 0);
    drop(pending);
    fs::write(fixture.inside.join("file"), "old").unwrap();
    let mut pending = fixture.workspace.begin_write(&path("file"), LIMIT).unwrap();
    pending.write(b"new").unwrap();
    assert_eq!(fs::read_dir(&fixture.inside).unwrap().count(), 1);
    pending.commit(&always(), OnLink::Refuse).unwrap();
    assert_eq!(fs::read_dir(&fixture.inside).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(fixture.inside.join("file")).unwrap(), "new");
}

#[test]
fn the_limit_applies_to_all_chunks_together() {
    let fixture = fixture();
    let mut pending = fixture.workspace.begin_write(&path("file"), 5).unwrap();
    pending.write(b"123").unwrap();
    assert!(matches!(pending.write(b"456"), Err(Error::TooLarge { limit: 5 })));
    pending.write(b"45").unwrap();
    assert_eq!(pending.commit(&always(), OnLink::Refuse).unwrap().size, 5);
}

#[test]
fn listing_a_directory_removes_stale_temporary_files_and_keeps_locked_ones() {
    let fixture = fixture();
    let name = |digit: &str| format!(".herm-{}.tmp", digit.repeat(32));
    fs::write(fixture.inside.join(name("a")), "stale").unwrap();
    let written = fs::File::create(fixture.inside.join(name("b"))).unwrap();
    flock(&written, FlockOperation::NonBlockingLockExclusive).unwrap();
    // Create entries that only resemble the server's temporary files: the name of the first differs, and the others are
    // not regular files.
    fs::write(fixture.inside.join(".herm-mine.tmp"), "mine").unwrap();
    fs::create_dir(fixture.inside.join(name("c"))).unwrap();
    symlink(&fixture.outside, fixture.inside.join(name("d"))).unwrap();
    let names = || {
        let entries = fixture.workspace.list(&path("")).unwrap();
        entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
    };
    assert_eq!(names(), [name("b"), name("c"), name("d"), ".herm-mine.tmp".to_owned()]);
    assert!(!fixture.inside.join(name("a")).exists());
    drop(written);
    assert_eq!(names(), [name("c"), name("d"), ".herm-mine.tmp".to_owned()]);
    fixture.assert_outside_unchanged();
}

#[test]
fn a_link_at_the_destination_is_rejected_even_if_it_appears_during_the_write() {
    let fixture = fixture();
    symlink(fixture.outside.join("secret"), fixture.inside.join("link")).unwrap();
    let checked = fixture.workspace.check_write(&path("link"), &always());
    assert!(matches!(checked, Err(Error::Symlink)), "{checked:?}");
    let mut pending = fixture.workspace.begin_write(&path("file"), LIMIT).unwrap();
    pending.write(b"mine").unwrap();
    fs::rename(fixture.inside.join("link"), fixture.inside.join("file")).unwrap();
    let committed = pending.commit(&always(), OnLink::Refuse);
    assert!(matches!(committed, Err(Error::Symlink)), "{committed:?}");
    fixture.assert_outside_unchanged();
    assert_eq!(fs::read_dir(&fixture.inside).unwrap().count(), 1);
}

#[test]
fn a_precondition_is_checked_at_commit() {
    let fixture = fixture();
    let is_new = precondition(None, Some(EntityTags::Any));
    fixture.workspace.check_write(&path("a/file"), &is_new).unwrap();
    let late = fixture.workspace.begin_write(&path("a/file"), LIMIT).unwrap();
    fixture.workspace.write_atomic(&path("a/file"), b"first", LIMIT).unwrap();
    assert!(matches!(late.commit(&is_new, OnLink::Refuse), Err(Error::Precondition)));
    assert!(matches!(fixture.workspace.check_write(&path("a/file"), &is_new), Err(Error::Precondition)));
    let etag = fixture.workspace.open_read(&path("a/file")).unwrap().etag;
    let same = precondition(Some(EntityTags::OneOf(vec![etag])), None);
    let [one, two] = [(); 2].map(|()| fixture.workspace.begin_write(&path("a/file"), LIMIT).unwrap());
    one.commit(&same, OnLink::Refuse).unwrap();
    assert!(matches!(two.commit(&same, OnLink::Refuse), Err(Error::Precondition)));
}

#[test]
fn only_one_of_several_writers_with_the_same_precondition_succeeds() {
    for _ in 0..crate::rounds(50) {
        let fixture = fixture();
        fixture.workspace.write_atomic(&path("file"), b"old", LIMIT).unwrap();
        let etag = fixture.workspace.open_read(&path("file")).unwrap().etag;
        let same = precondition(Some(EntityTags::OneOf(vec![etag])), None);
        let is_new = precondition(None, Some(EntityTags::Any));
        for (name, condition) in [("file", &same), ("new", &is_new)] {
            let written = std::thread::scope(|scope| {
                let writers = [(); 4].map(|()| {
                    let pending = fixture.workspace.begin_write(&path(name), LIMIT).unwrap();
                    scope.spawn(move || pending.commit(condition, OnLink::Refuse).is_ok())
                });
                writers.into_iter().map(|writer| writer.join().unwrap()).filter(|is_ok| *is_ok).count()
            });
            assert_eq!(written, 1, "{name}");
        }
    }
}

#[test]
fn a_program_written_in_chunks_stays_executable() {
    let fixture = fixture();
    let file = fixture.inside.join("tool");
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4750)).unwrap();
    let pending = fixture.workspace.begin_write(&path("tool"), LIMIT).unwrap();
    pending.commit(&always(), OnLink::Refuse).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o750);
}
