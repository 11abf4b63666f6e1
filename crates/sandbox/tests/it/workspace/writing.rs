use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use herm_sandbox::workspace::Error;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{SECRET, ground, path};

const LIMIT: u64 = 1024 * 1024;

#[test]
fn directories_on_the_way_are_made() {
    let ground = ground();
    ground.workspace.write_atomic(&path("a/b/c.txt"), b"deep", LIMIT).unwrap();
    ground.workspace.write_atomic(&path("a/b/d.txt"), b"beside", LIMIT).unwrap();
    assert_eq!(fs::read_to_string(ground.inside.join("a/b/c.txt")).unwrap(), "deep");
    assert_eq!(fs::read_dir(ground.inside.join("a/b")).unwrap().count(), 2);
}

#[test]
fn a_link_in_the_place_is_replaced_and_what_it_leads_to_untouched() {
    let ground = ground();
    ground.put_links();
    for name in ["to_file", "to_dir", "relative", "looped"] {
        ground.workspace.write_atomic(&path(name), b"mine", LIMIT).unwrap();
        assert!(fs::symlink_metadata(ground.inside.join(name)).unwrap().is_file(), "{name}");
    }
    ground.outside_is_as_it_was();
}

#[test]
fn nothing_is_written_through_a_link_on_the_way() {
    let ground = ground();
    ground.put_links();
    for way in ["to_dir/secret", "to_dir/new", "to_dir/a/b/new", "magic/tmp/new", "looped/new"] {
        let written = ground.workspace.write_atomic(&path(way), b"mine", LIMIT);
        // A link in the last directory's place is told from no directory only by opening it.
        assert!(matches!(written, Err(Error::Symlink | Error::NotADirectory)), "{way}: {written:?}");
    }
    ground.outside_is_as_it_was();
}

#[test]
fn what_is_not_a_file_is_not_written_into() {
    let ground = ground();
    fs::create_dir(ground.inside.join("directory")).unwrap();
    let written = ground.workspace.write_atomic(&path("directory"), b"mine", LIMIT);
    assert!(matches!(written, Err(Error::NotAFile)), "{written:?}");
    assert!(matches!(ground.workspace.write_atomic(&path(""), b"mine", LIMIT), Err(Error::IsRoot)));
    fs::write(ground.inside.join("file"), "file").unwrap();
    let written = ground.workspace.write_atomic(&path("file/below"), b"mine", LIMIT);
    assert!(matches!(written, Err(Error::NotADirectory)), "{written:?}");
    // A FIFO is replaced like a link: nobody waits for a reader.
    mknodat(CWD, ground.inside.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    ground.workspace.write_atomic(&path("fifo"), b"mine", LIMIT).unwrap();
    assert_eq!(fs::read_to_string(ground.inside.join("fifo")).unwrap(), "mine");
}

#[test]
fn a_write_beyond_the_limit_leaves_the_file_as_it_was() {
    let ground = ground();
    ground.workspace.write_atomic(&path("file"), b"old", 3).unwrap();
    let written = ground.workspace.write_atomic(&path("file"), b"newer", 3);
    assert!(matches!(written, Err(Error::TooLarge { limit: 3 })), "{written:?}");
    assert_eq!(fs::read_to_string(ground.inside.join("file")).unwrap(), "old");
}

#[test]
fn a_program_stays_one_when_it_is_rewritten_and_nobody_becomes_another_user_by_it() {
    let ground = ground();
    let file = ground.inside.join("tool");
    fs::write(&file, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o6750)).unwrap();
    ground.workspace.write_atomic(&path("tool"), b"#!/bin/sh\ntrue\n", LIMIT).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o750);
}

#[test]
fn a_hard_linked_file_is_replaced_and_its_other_name_keeps_the_old_bytes() {
    let ground = ground();
    fs::write(ground.inside.join("one"), "old").unwrap();
    fs::hard_link(ground.inside.join("one"), ground.inside.join("two")).unwrap();
    ground.workspace.write_atomic(&path("one"), b"new", LIMIT).unwrap();
    assert_eq!(fs::read_to_string(ground.inside.join("two")).unwrap(), "old");
}

#[test]
fn whoever_reads_meanwhile_sees_the_old_bytes_or_the_new_ones() {
    let ground = ground();
    let of = |letter: u8| vec![letter; 200_000];
    ground.workspace.write_atomic(&path("file"), &of(b'a'), LIMIT).unwrap();
    let is_done = AtomicBool::new(false);
    let (seen_a, seen_b) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut seen_a, mut seen_b) = (0, 0);
            while !(is_done.load(Ordering::SeqCst) && seen_a > 0 && seen_b > 0) {
                let bytes = ground.workspace.read(&path("file"), LIMIT).unwrap();
                assert_eq!(bytes.len(), 200_000);
                let first = bytes[0];
                assert!(bytes.iter().all(|byte| *byte == first), "two versions are mixed");
                *(if first == b'a' { &mut seen_a } else { &mut seen_b }) += 1;
            }
            (seen_a, seen_b)
        });
        let mut letters = [b'b', b'a'].into_iter().cycle();
        for _ in 0..crate::rounds(50) {
            ground.workspace.write_atomic(&path("file"), &of(letters.next().unwrap()), LIMIT).unwrap();
        }
        is_done.store(true, Ordering::SeqCst);
        // Until the reader has met both, each stays for as long as it takes to read it.
        while !reader.is_finished() {
            ground.workspace.write_atomic(&path("file"), &of(letters.next().unwrap()), LIMIT).unwrap();
        }
        reader.join().unwrap()
    });
    assert!(seen_a > 0 && seen_b > 0);
    // And no half-written file is left beside it.
    assert_eq!(ground.workspace.list(&path("")).unwrap().len(), 1);
}

#[test]
fn a_link_in_a_directory_that_is_to_be_made_is_not_gone_through() {
    let ground = ground();
    fs::create_dir(ground.inside.join("a")).unwrap();
    symlink(&ground.outside, ground.inside.join("a/b")).unwrap();
    let written = ground.workspace.write_atomic(&path("a/b/c/new"), SECRET.as_bytes(), LIMIT);
    assert!(matches!(written, Err(Error::Symlink)), "{written:?}");
    ground.outside_is_as_it_was();
}
