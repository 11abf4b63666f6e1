use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use herm_sandbox::workspace::Error;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{SECRET, fixture, path};

const LIMIT: u64 = 1024 * 1024;

#[test]
fn missing_directories_are_created() {
    let fixture = fixture();
    fixture.workspace.write_atomic(&path("a/b/c.txt"), b"deep", LIMIT).unwrap();
    fixture.workspace.write_atomic(&path("a/b/d.txt"), b"second", LIMIT).unwrap();
    assert_eq!(fs::read_to_string(fixture.inside.join("a/b/c.txt")).unwrap(), "deep");
    assert_eq!(fs::read_dir(fixture.inside.join("a/b")).unwrap().count(), 2);
}

#[test]
fn a_link_at_the_destination_is_replaced_and_its_target_is_unchanged() {
    let fixture = fixture();
    fixture.create_links();
    for name in ["to_file", "to_dir", "relative", "looped"] {
        fixture.workspace.write_atomic(&path(name), b"mine", LIMIT).unwrap();
        assert!(fs::symlink_metadata(fixture.inside.join(name)).unwrap().is_file(), "{name}");
    }
    fixture.assert_outside_unchanged();
}

#[test]
fn nothing_is_written_through_a_link_in_the_path() {
    let fixture = fixture();
    fixture.create_links();
    for link_path in ["to_dir/secret", "to_dir/new", "to_dir/a/b/new", "magic/tmp/new", "looped/new"] {
        let written = fixture.workspace.write_atomic(&path(link_path), b"mine", LIMIT);
        // The error depends on whether the link is the last parent directory in the path or an earlier one.
        assert!(matches!(written, Err(Error::Symlink | Error::NotADirectory)), "{link_path}: {written:?}");
    }
    fixture.assert_outside_unchanged();
}

#[test]
fn only_files_can_be_written() {
    let fixture = fixture();
    fs::create_dir(fixture.inside.join("directory")).unwrap();
    let written = fixture.workspace.write_atomic(&path("directory"), b"mine", LIMIT);
    assert!(matches!(written, Err(Error::NotAFile)), "{written:?}");
    assert!(matches!(fixture.workspace.write_atomic(&path(""), b"mine", LIMIT), Err(Error::IsRoot)));
    fs::write(fixture.inside.join("file"), "file").unwrap();
    let written = fixture.workspace.write_atomic(&path("file/below"), b"mine", LIMIT);
    assert!(matches!(written, Err(Error::NotADirectory)), "{written:?}");
    // A write replaces a FIFO in the same way as a link, without waiting for a reader of the FIFO.
    mknodat(CWD, fixture.inside.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    fixture.workspace.write_atomic(&path("fifo"), b"mine", LIMIT).unwrap();
    assert_eq!(fs::read_to_string(fixture.inside.join("fifo")).unwrap(), "mine");
}

#[test]
fn a_write_that_exceeds_the_limit_leaves_the_file_unchanged() {
    let fixture = fixture();
    fixture.workspace.write_atomic(&path("file"), b"old", 3).unwrap();
    let written = fixture.workspace.write_atomic(&path("file"), b"newer", 3);
    assert!(matches!(written, Err(Error::TooLarge { limit: 3 })), "{written:?}");
    assert_eq!(fs::read_to_string(fixture.inside.join("file")).unwrap(), "old");
}

#[test]
fn a_rewritten_program_stays_executable_and_loses_its_setuid_bits() {
    let fixture = fixture();
    let file = fixture.inside.join("tool");
    fs::write(&file, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o6750)).unwrap();
    fixture.workspace.write_atomic(&path("tool"), b"#!/bin/sh\ntrue\n", LIMIT).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o750);
}

#[test]
fn replacing_a_hard_linked_file_keeps_the_old_content_under_its_other_name() {
    let fixture = fixture();
    fs::write(fixture.inside.join("one"), "old").unwrap();
    fs::hard_link(fixture.inside.join("one"), fixture.inside.join("two")).unwrap();
    fixture.workspace.write_atomic(&path("one"), b"new", LIMIT).unwrap();
    assert_eq!(fs::read_to_string(fixture.inside.join("two")).unwrap(), "old");
}

#[test]
fn a_concurrent_reader_sees_either_the_old_or_the_new_content() {
    let fixture = fixture();
    let content = |letter: u8| vec![letter; 200_000];
    fixture.workspace.write_atomic(&path("file"), &content(b'a'), LIMIT).unwrap();
    let is_done = AtomicBool::new(false);
    let (seen_a, seen_b) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut seen_a, mut seen_b) = (0, 0);
            while !(is_done.load(Ordering::SeqCst) && seen_a > 0 && seen_b > 0) {
                let bytes = fixture.workspace.read(&path("file"), LIMIT).unwrap();
                assert_eq!(bytes.len(), 200_000);
                let first = bytes[0];
                assert!(bytes.iter().all(|byte| *byte == first), "two versions are mixed");
                *(if first == b'a' { &mut seen_a } else { &mut seen_b }) += 1;
            }
            (seen_a, seen_b)
        });
        let mut letters = [b'b', b'a'].into_iter().cycle();
        for _ in 0..crate::rounds(50) {
            fixture.workspace.write_atomic(&path("file"), &content(letters.next().unwrap()), LIMIT).unwrap();
        }
        is_done.store(true, Ordering::SeqCst);
        // Keep writing until the reader thread has seen both contents.
        while !reader.is_finished() {
            fixture.workspace.write_atomic(&path("file"), &content(letters.next().unwrap()), LIMIT).unwrap();
        }
        reader.join().unwrap()
    });
    assert!(seen_a > 0 && seen_b > 0);
    // The directory contains no temporary file.
    assert_eq!(fixture.workspace.list(&path("")).unwrap().len(), 1);
}

#[test]
fn missing_directories_are_not_created_through_a_link() {
    let fixture = fixture();
    fs::create_dir(fixture.inside.join("a")).unwrap();
    symlink(&fixture.outside, fixture.inside.join("a/b")).unwrap();
    let written = fixture.workspace.write_atomic(&path("a/b/c/new"), SECRET.as_bytes(), LIMIT);
    assert!(matches!(written, Err(Error::Symlink)), "{written:?}");
    fixture.assert_outside_unchanged();
}
