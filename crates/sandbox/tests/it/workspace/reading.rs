use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use herm_sandbox::workspace::{Error, Kind, MAX_ENTRIES, PathError, WorkspacePath};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{SECRET, fixture, path};

const LIMIT: u64 = 1024;

#[test]
fn paths_that_leave_the_workspace_are_rejected() {
    for (text, error) in [
        ("/etc/passwd", PathError::Absolute),
        ("../outside/secret", PathError::Parent),
        ("a/../../outside/secret", PathError::Parent),
        ("a/..", PathError::Parent),
        ("a\0b", PathError::Nul),
    ] {
        assert_eq!(WorkspacePath::parse(text), Err(error), "{text:?}");
    }
}

#[test]
fn links_are_not_followed_anywhere_in_a_path() {
    let fixture = fixture();
    fixture.create_links();
    let paths = ["to_file", "to_dir/secret", "to_dir", "relative", "passwd", "magic/etc/passwd", "looped"];
    for link_path in paths {
        let read = fixture.workspace.read(&path(link_path), LIMIT);
        assert!(matches!(read, Err(Error::Symlink)), "{link_path}: {read:?}");
        let listed = fixture.workspace.list(&path(link_path));
        assert!(matches!(listed, Err(Error::Symlink | Error::NotADirectory)), "{link_path}: {listed:?}");
    }
}

#[test]
fn a_link_is_listed_as_a_link_without_data_about_its_target() {
    let fixture = fixture();
    fixture.create_links();
    let entries = fixture.workspace.list(&path("")).unwrap();
    assert_eq!(entries.len(), 6);
    assert!(entries.iter().all(|entry| entry.kind == Kind::Symlink && entry.size.is_none()), "{entries:?}");
}

/// A hard link is read like any other file. It cannot refer to a file outside the workspace, because the workspace is a
/// separate mount in the sandbox.
#[test]
fn a_hard_link_is_a_regular_file() {
    let fixture = fixture();
    fs::write(fixture.inside.join("file"), "mine").unwrap();
    fs::hard_link(fixture.inside.join("file"), fixture.inside.join("link")).unwrap();
    assert_eq!(fixture.workspace.read(&path("link"), LIMIT).unwrap(), b"mine");
    assert_eq!(fixture.workspace.list(&path("")).unwrap()[1].kind, Kind::File);
}

#[test]
fn special_files_are_rejected_without_blocking_and_not_listed() {
    let fixture = fixture();
    mknodat(CWD, fixture.inside.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let _listener = UnixListener::bind(fixture.inside.join("socket")).unwrap();
    for name in ["fifo", "socket"] {
        let read = fixture.workspace.read(&path(name), LIMIT);
        assert!(matches!(read, Err(Error::NotAFile)), "{name}: {read:?}");
    }
    fs::create_dir(fixture.inside.join("directory")).unwrap();
    assert!(matches!(fixture.workspace.read(&path("directory"), LIMIT), Err(Error::NotAFile)));
    assert!(matches!(fixture.workspace.read(&path(""), LIMIT), Err(Error::NotAFile)));
    let names: Vec<String> =
        fixture.workspace.list(&path("")).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["directory"]);
}

/// Only root can create a device file. Without root, the test checks that creating one fails, as it does for an agent.
#[test]
fn a_device_is_not_read() {
    let fixture = fixture();
    let zero = rustix::fs::makedev(1, 5);
    let made = mknodat(CWD, fixture.inside.join("zero"), FileType::CharacterDevice, Mode::RWXU, zero);
    assert_eq!(made.is_ok(), rustix::process::geteuid().is_root());
    let read = fixture.workspace.read(&path("zero"), LIMIT);
    assert!(matches!(read, Err(Error::NotAFile | Error::NotFound)), "{read:?}");
}

#[test]
fn a_huge_file_is_rejected_by_its_size_and_not_read() {
    let fixture = fixture();
    File::create(fixture.inside.join("sparse")).unwrap().set_len(1 << 40).unwrap();
    let read = fixture.workspace.read(&path("sparse"), LIMIT);
    assert!(matches!(read, Err(Error::TooLarge { limit: LIMIT })), "{read:?}");
    fs::write(fixture.inside.join("fits"), [b'x'; LIMIT as usize]).unwrap();
    assert_eq!(fixture.workspace.read(&path("fits"), LIMIT).unwrap().len() as u64, LIMIT);
    fs::write(fixture.inside.join("one_more"), [b'x'; LIMIT as usize + 1]).unwrap();
    assert!(matches!(fixture.workspace.read(&path("one_more"), LIMIT), Err(Error::TooLarge { .. })));
}

#[test]
fn the_limit_applies_to_a_file_that_grows_while_it_is_read() {
    let fixture = fixture();
    let mut file = File::create(fixture.inside.join("log")).unwrap();
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
            match fixture.workspace.read(&path("log"), LIMIT) {
                Ok(bytes) => assert!(bytes.len() as u64 <= LIMIT),
                Err(error) => assert!(matches!(error, Error::TooLarge { .. }), "{error:?}"),
            }
        }
        drop(stop);
    });
}

#[test]
fn a_name_that_is_not_utf_8_is_listed_with_replacement_characters() {
    let fixture = fixture();
    fs::write(fixture.inside.join(OsStr::from_bytes(b"odd\xff")), "odd").unwrap();
    fs::write(fixture.inside.join("even"), "even").unwrap();
    let names: Vec<String> =
        fixture.workspace.list(&path("")).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["even", "odd\u{fffd}"]);
    assert!(matches!(fixture.workspace.read(&path("odd\u{fffd}"), LIMIT), Err(Error::NotFound)));
}

#[test]
fn a_directory_with_too_many_entries_of_any_type_is_not_listed() {
    let fixture = fixture();
    fs::create_dir(fixture.inside.join("full")).unwrap();
    for number in 0..=MAX_ENTRIES {
        let fifo = fixture.inside.join(format!("full/{number}"));
        mknodat(CWD, fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    }
    assert!(matches!(fixture.workspace.list(&path("full")), Err(Error::TooManyEntries)));
    fs::remove_file(fixture.inside.join("full/0")).unwrap();
    assert_eq!(fixture.workspace.list(&path("full")).unwrap(), []);
}

#[test]
fn a_workspace_that_is_itself_a_link_is_not_opened() {
    let fixture = fixture();
    let link = fixture.outside.with_file_name("link");
    symlink(&fixture.outside, &link).unwrap();
    assert!(herm_sandbox::workspace::Workspace::create(&link).is_err());
    assert!(herm_sandbox::workspace::Workspace::destroy(&link).is_err());
    assert_eq!(fs::read_to_string(fixture.outside.join("secret")).unwrap(), SECRET);
}

#[test]
fn an_etag_changes_with_the_content() {
    let fixture = fixture();
    fixture.workspace.write_atomic(&path("file"), b"one", LIMIT).unwrap();
    let first = fixture.workspace.open_read(&path("file")).unwrap().etag;
    assert_eq!(fixture.workspace.open_read(&path("file")).unwrap().etag, first);
    fixture.workspace.write_atomic(&path("file"), b"two", LIMIT).unwrap();
    assert_ne!(fixture.workspace.open_read(&path("file")).unwrap().etag, first);
}
