//! Files that come piece by piece, and may never be finished.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use herm_sandbox::workspace::{Error, OnLink};
use herm_types::file::{EntityTags, Precondition};
use rustix::fs::{FlockOperation, flock};

use super::{ground, path};

const LIMIT: u64 = 1024;

fn precondition(if_match: Option<EntityTags>, if_none_match: Option<EntityTags>) -> Precondition {
    Precondition { if_match, if_none_match }
}

fn always() -> Precondition {
    Precondition::default()
}

#[test]
fn pieces_become_one_file_and_until_then_there_is_none() {
    let ground = ground();
    let mut pending = ground.workspace.begin_write(&path("a/file"), LIMIT).unwrap();
    pending.write(b"one ").unwrap();
    pending.write(b"two").unwrap();
    assert!(matches!(ground.workspace.open_read(&path("a/file")), Err(Error::NotFound)));
    let written = pending.commit(&always(), OnLink::Refuse).unwrap();
    assert_eq!(written.size, 7);
    assert_eq!(fs::read_to_string(ground.inside.join("a/file")).unwrap(), "one two");
    let read = ground.workspace.open_read(&path("a/file")).unwrap();
    assert_eq!((read.etag, read.modified_at), (written.etag, written.modified_at));
}

/// Nobody has to clean up: a process that is killed leaves as little.
#[test]
fn a_file_that_is_not_finished_has_no_name() {
    let ground = ground();
    let mut pending = ground.workspace.begin_write(&path("file"), LIMIT).unwrap();
    pending.write(b"half").unwrap();
    assert_eq!(fs::read_dir(&ground.inside).unwrap().count(), 0);
    drop(pending);
    fs::write(ground.inside.join("file"), "old").unwrap();
    let mut pending = ground.workspace.begin_write(&path("file"), LIMIT).unwrap();
    pending.write(b"new").unwrap();
    assert_eq!(fs::read_dir(&ground.inside).unwrap().count(), 1);
    pending.commit(&always(), OnLink::Refuse).unwrap();
    assert_eq!(fs::read_dir(&ground.inside).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(ground.inside.join("file")).unwrap(), "new");
}

#[test]
fn the_limit_holds_for_all_pieces_together() {
    let ground = ground();
    let mut pending = ground.workspace.begin_write(&path("file"), 5).unwrap();
    pending.write(b"123").unwrap();
    assert!(matches!(pending.write(b"456"), Err(Error::TooLarge { limit: 5 })));
    pending.write(b"45").unwrap();
    assert_eq!(pending.commit(&always(), OnLink::Refuse).unwrap().size, 5);
}

#[test]
fn what_a_crash_left_goes_when_its_directory_is_listed_and_what_is_written_stays() {
    let ground = ground();
    let name = |digit: &str| format!(".herm-{}.tmp", digit.repeat(32));
    fs::write(ground.inside.join(name("a")), "left over").unwrap();
    let written = fs::File::create(ground.inside.join(name("b"))).unwrap();
    flock(&written, FlockOperation::NonBlockingLockExclusive).unwrap();
    // Not ours: another name, another kind.
    fs::write(ground.inside.join(".herm-mine.tmp"), "mine").unwrap();
    fs::create_dir(ground.inside.join(name("c"))).unwrap();
    symlink(&ground.outside, ground.inside.join(name("d"))).unwrap();
    let names = || {
        let entries = ground.workspace.list(&path("")).unwrap();
        entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
    };
    assert_eq!(names(), [name("b"), name("c"), name("d"), ".herm-mine.tmp".to_owned()]);
    assert!(!ground.inside.join(name("a")).exists());
    drop(written);
    assert_eq!(names(), [name("c"), name("d"), ".herm-mine.tmp".to_owned()]);
    ground.outside_is_as_it_was();
}

#[test]
fn a_link_in_the_place_is_refused_also_one_that_comes_meanwhile() {
    let ground = ground();
    symlink(ground.outside.join("secret"), ground.inside.join("link")).unwrap();
    let checked = ground.workspace.check_write(&path("link"), &always());
    assert!(matches!(checked, Err(Error::Symlink)), "{checked:?}");
    let mut pending = ground.workspace.begin_write(&path("file"), LIMIT).unwrap();
    pending.write(b"mine").unwrap();
    fs::rename(ground.inside.join("link"), ground.inside.join("file")).unwrap();
    let committed = pending.commit(&always(), OnLink::Refuse);
    assert!(matches!(committed, Err(Error::Symlink)), "{committed:?}");
    ground.outside_is_as_it_was();
    assert_eq!(fs::read_dir(&ground.inside).unwrap().count(), 1);
}

#[test]
fn a_precondition_is_held_against_what_is_there_at_the_end() {
    let ground = ground();
    let is_new = precondition(None, Some(EntityTags::Any));
    ground.workspace.check_write(&path("a/file"), &is_new).unwrap();
    let late = ground.workspace.begin_write(&path("a/file"), LIMIT).unwrap();
    ground.workspace.write_atomic(&path("a/file"), b"first", LIMIT).unwrap();
    assert!(matches!(late.commit(&is_new, OnLink::Refuse), Err(Error::Precondition)));
    assert!(matches!(ground.workspace.check_write(&path("a/file"), &is_new), Err(Error::Precondition)));
    let etag = ground.workspace.open_read(&path("a/file")).unwrap().etag;
    let same = precondition(Some(EntityTags::OneOf(vec![etag])), None);
    let [one, two] = [(); 2].map(|()| ground.workspace.begin_write(&path("a/file"), LIMIT).unwrap());
    one.commit(&same, OnLink::Refuse).unwrap();
    assert!(matches!(two.commit(&same, OnLink::Refuse), Err(Error::Precondition)));
}

#[test]
fn of_many_that_saw_the_same_file_one_writes_it() {
    for _ in 0..crate::rounds(50) {
        let ground = ground();
        ground.workspace.write_atomic(&path("file"), b"old", LIMIT).unwrap();
        let etag = ground.workspace.open_read(&path("file")).unwrap().etag;
        let same = precondition(Some(EntityTags::OneOf(vec![etag])), None);
        let is_new = precondition(None, Some(EntityTags::Any));
        for (name, condition) in [("file", &same), ("new", &is_new)] {
            let written = std::thread::scope(|scope| {
                let writers = [(); 4].map(|()| {
                    let pending = ground.workspace.begin_write(&path(name), LIMIT).unwrap();
                    scope.spawn(move || pending.commit(condition, OnLink::Refuse).is_ok())
                });
                writers.into_iter().map(|writer| writer.join().unwrap()).filter(|is_ok| *is_ok).count()
            });
            assert_eq!(written, 1, "{name}");
        }
    }
}

#[test]
fn a_program_stays_one_when_it_comes_in_pieces() {
    let ground = ground();
    let file = ground.inside.join("tool");
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4750)).unwrap();
    let pending = ground.workspace.begin_write(&path("tool"), LIMIT).unwrap();
    pending.commit(&always(), OnLink::Refuse).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o750);
}
