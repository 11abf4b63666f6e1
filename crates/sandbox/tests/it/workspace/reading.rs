use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use herm_sandbox::workspace::{Error, Kind, MAX_ENTRIES, PathError, WorkspacePath};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{SECRET, ground, path};

const LIMIT: u64 = 1024;

#[test]
fn a_path_that_leaves_the_workspace_by_its_text_is_none() {
    for (text, fault) in [
        ("/etc/passwd", PathError::Absolute),
        ("../outside/secret", PathError::Parent),
        ("a/../../outside/secret", PathError::Parent),
        ("a/..", PathError::Parent),
        ("a\0b", PathError::Nul),
    ] {
        assert_eq!(WorkspacePath::parse(text), Err(fault), "{text:?}");
    }
}

#[test]
fn no_link_is_followed_wherever_it_stands_in_the_path() {
    let ground = ground();
    ground.put_links();
    let ways = ["to_file", "to_dir/secret", "to_dir", "relative", "passwd", "magic/etc/passwd", "looped"];
    for way in ways {
        let read = ground.workspace.read(&path(way), LIMIT);
        assert!(matches!(read, Err(Error::Symlink)), "{way}: {read:?}");
        let listed = ground.workspace.list(&path(way));
        assert!(matches!(listed, Err(Error::Symlink | Error::NotADirectory)), "{way}: {listed:?}");
    }
}

#[test]
fn a_link_is_listed_as_one_and_tells_nothing_of_where_it_leads() {
    let ground = ground();
    ground.put_links();
    let entries = ground.workspace.list(&path("")).unwrap();
    assert_eq!(entries.len(), 6);
    assert!(entries.iter().all(|entry| entry.kind == Kind::Symlink && entry.size.is_none()), "{entries:?}");
}

/// From inside nobody can make one to a file outside: the workspace is a mount of its own there.
#[test]
fn a_hard_link_is_a_regular_file() {
    let ground = ground();
    fs::write(ground.inside.join("file"), "mine").unwrap();
    fs::hard_link(ground.inside.join("file"), ground.inside.join("link")).unwrap();
    assert_eq!(ground.workspace.read(&path("link"), LIMIT).unwrap(), b"mine");
    assert_eq!(ground.workspace.list(&path("")).unwrap()[1].kind, Kind::File);
}

#[test]
fn what_is_not_a_regular_file_is_neither_waited_for_nor_listed() {
    let ground = ground();
    mknodat(CWD, ground.inside.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let _listener = UnixListener::bind(ground.inside.join("socket")).unwrap();
    for name in ["fifo", "socket"] {
        let read = ground.workspace.read(&path(name), LIMIT);
        assert!(matches!(read, Err(Error::NotAFile)), "{name}: {read:?}");
    }
    fs::create_dir(ground.inside.join("directory")).unwrap();
    assert!(matches!(ground.workspace.read(&path("directory"), LIMIT), Err(Error::NotAFile)));
    assert!(matches!(ground.workspace.read(&path(""), LIMIT), Err(Error::NotAFile)));
    let names: Vec<String> =
        ground.workspace.list(&path("")).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["directory"]);
}

/// Where the tests may make one; elsewhere the making is refused, which an agent meets too.
#[test]
fn a_device_is_not_read() {
    let ground = ground();
    let zero = rustix::fs::makedev(1, 5);
    let made = mknodat(CWD, ground.inside.join("zero"), FileType::CharacterDevice, Mode::RWXU, zero);
    assert_eq!(made.is_ok(), rustix::process::geteuid().is_root());
    let read = ground.workspace.read(&path("zero"), LIMIT);
    assert!(matches!(read, Err(Error::NotAFile | Error::NotFound)), "{read:?}");
}

#[test]
fn a_huge_file_is_refused_by_its_size_and_not_read() {
    let ground = ground();
    File::create(ground.inside.join("sparse")).unwrap().set_len(1 << 40).unwrap();
    let read = ground.workspace.read(&path("sparse"), LIMIT);
    assert!(matches!(read, Err(Error::TooLarge { limit: LIMIT })), "{read:?}");
    fs::write(ground.inside.join("fits"), [b'x'; LIMIT as usize]).unwrap();
    assert_eq!(ground.workspace.read(&path("fits"), LIMIT).unwrap().len() as u64, LIMIT);
    fs::write(ground.inside.join("one_more"), [b'x'; LIMIT as usize + 1]).unwrap();
    assert!(matches!(ground.workspace.read(&path("one_more"), LIMIT), Err(Error::TooLarge { .. })));
}

#[test]
fn a_file_that_grows_while_it_is_read_is_held_to_the_limit() {
    let ground = ground();
    let mut file = File::create(ground.inside.join("log")).unwrap();
    std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                if file.write_all(&[b'x'; 97]).is_err() || file.metadata().unwrap().len() > 4 * LIMIT {
                    file.set_len(0).unwrap();
                }
            }
        });
        for _ in 0..crate::rounds(2_000) {
            match ground.workspace.read(&path("log"), LIMIT) {
                Ok(bytes) => assert!(bytes.len() as u64 <= LIMIT),
                Err(error) => assert!(matches!(error, Error::TooLarge { .. }), "{error:?}"),
            }
        }
        drop(stop);
    });
}

#[test]
fn a_name_that_is_not_utf_8_is_listed_and_harms_nothing() {
    let ground = ground();
    fs::write(ground.inside.join(OsStr::from_bytes(b"odd\xff")), "odd").unwrap();
    fs::write(ground.inside.join("even"), "even").unwrap();
    let names: Vec<String> =
        ground.workspace.list(&path("")).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["even", "odd\u{fffd}"]);
    assert!(matches!(ground.workspace.read(&path("odd\u{fffd}"), LIMIT), Err(Error::NotFound)));
}

#[test]
fn a_directory_with_too_many_entries_is_not_listed_be_they_files_or_not() {
    let ground = ground();
    fs::create_dir(ground.inside.join("full")).unwrap();
    for number in 0..=MAX_ENTRIES {
        let fifo = ground.inside.join(format!("full/{number}"));
        mknodat(CWD, fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    }
    assert!(matches!(ground.workspace.list(&path("full")), Err(Error::TooManyEntries)));
    fs::remove_file(ground.inside.join("full/0")).unwrap();
    assert_eq!(ground.workspace.list(&path("full")).unwrap(), []);
}

#[test]
fn a_workspace_that_is_itself_a_link_is_not_opened() {
    let ground = ground();
    let link = ground.outside.with_file_name("link");
    symlink(&ground.outside, &link).unwrap();
    assert!(herm_sandbox::workspace::Workspace::create(&link).is_err());
    assert!(herm_sandbox::workspace::Workspace::destroy(&link).is_err());
    assert_eq!(fs::read_to_string(ground.outside.join("secret")).unwrap(), SECRET);
}

#[test]
fn an_etag_changes_with_the_content() {
    let ground = ground();
    ground.workspace.write_atomic(&path("file"), b"one", LIMIT).unwrap();
    let first = ground.workspace.open_read(&path("file")).unwrap().etag;
    assert_eq!(ground.workspace.open_read(&path("file")).unwrap().etag, first);
    ground.workspace.write_atomic(&path("file"), b"two", LIMIT).unwrap();
    assert_ne!(ground.workspace.open_read(&path("file")).unwrap().etag, first);
}
