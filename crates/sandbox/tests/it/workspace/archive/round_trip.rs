use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use herm_sandbox::workspace::archive::{self, ArchiveError, Stop};
use rustix::fs::{Mode, OFlags, mkdirat, mknodat, openat, renameat};

use super::{archive_of, manifest, packed, restore, unpacked};
use crate::workspace::destroy::run_as_nobody;
use crate::workspace::{Fixture, fixture};

/// A modification time in the past. Its nanoseconds are not zero.
const TIME: Duration = Duration::new(1_000_000_007, 123_456_789);

fn write(dir: &Path, path: &str, bytes: &[u8], mode: u32) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    set_time(&path);
}

fn set_time(path: &Path) {
    let time = UNIX_EPOCH + TIME;
    File::open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
}

/// Lists all entries below `dir`, each with its name, type, permissions, modification time and content.
fn listing(dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let (stat, path) = (entry.metadata().unwrap(), entry.path());
        let content = match stat.file_type() {
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string(),
            kind if kind.is_dir() => listing(&path).join("\n").into(),
            _ => summary(&path).into(),
        };
        let links = if stat.is_dir() { 0 } else { stat.nlink() };
        let time = (stat.mtime(), stat.mtime_nsec());
        lines.push(format!("{:?} {:o} {links} {time:?} {content:?}", entry.file_name(), stat.mode()));
    }
    lines.sort();
    lines
}

/// Returns the first 20 bytes and the size of a file.
fn summary(path: &Path) -> String {
    let mut bytes = Vec::new();
    File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    format!("{:?} {}", &bytes[..bytes.len().min(20)], bytes.len())
}

fn fill(fixture: &Fixture) {
    let dir = &fixture.inside;
    write(dir, "a/b/script.sh", b"#!/bin/sh\n", 0o755);
    write(dir, "a/secret", b"0600", 0o600);
    write(dir, "empty", b"", 0o644);
    write(dir, &format!("{}/{}", "d".repeat(200), "n".repeat(255)), b"long", 0o644);
    fs::write(dir.join(OsStr::from_bytes(b"not \xff text")), "x").unwrap();
    write(dir, "big", &vec![7; 1_000_003], 0o640);
    fs::hard_link(dir.join("big"), dir.join("a/also big")).unwrap();
    symlink("../../a/secret", dir.join("a/b/link")).unwrap();
    symlink(&fixture.outside, dir.join("out")).unwrap();
    symlink("l".repeat(2000), dir.join("dangling")).unwrap();
    fs::create_dir(dir.join("closed")).unwrap();
    fs::set_permissions(dir.join("closed"), Permissions::from_mode(0o500)).unwrap();
    set_time(&dir.join("a/b"));
}

#[test]
fn a_workspace_is_restored_unchanged_and_no_link_is_followed() {
    let fixture = fixture();
    fill(&fixture);
    let before = listing(&fixture.inside);
    let (archive, contents) = archive_of(&fixture.inside);
    assert_eq!((contents.entries, contents.left_out), (14, 0));
    assert_eq!(contents.bytes, 1_000_003 + 10 + 4 + 4 + 1);
    let again = fixture.outside.parent().unwrap().join("again");
    restore(&archive, &again, contents).unwrap();
    assert_eq!(listing(&again), before);
    fixture.assert_outside_unchanged();
    // Restoring the same archive again changes nothing.
    restore(&archive, &again, contents).unwrap();
    assert_eq!(listing(&again), before);
}

#[test]
fn other_tar_programs_can_unpack_an_archive() {
    let fixture = fixture();
    fill(&fixture);
    let (archive, _) = archive_of(&fixture.inside);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("archive.tar"), unpacked(&archive)).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["-x", "-p", "-f", "archive.tar"]).current_dir(dir.path());
    let output = tar.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(listing(&dir.path().join("workspace")), listing(&fixture.inside));
    assert!(dir.path().join("manifest.jsonl").exists());
}

#[test]
fn the_manifest_lists_each_entry_with_its_hash() {
    let fixture = fixture();
    write(&fixture.inside, "abc", b"abc", 0o755);
    let (archive, _) = archive_of(&fixture.inside);
    assert_eq!(
        manifest(&archive),
        "{\"format\":\"herm-workspace\",\"version\":1}\n\
         {\"path\":\"abc\",\"type\":\"file\",\"size\":3,\"mode\":\"0755\",\"mtime\":\"1000000007.123456789\",\
         \"sha256\":\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"}\n"
    );
}

#[test]
fn empty_and_missing_workspaces_can_be_archived() {
    let fixture = fixture();
    for dir in [fixture.inside.clone(), fixture.outside.parent().unwrap().join("never made")] {
        let (archive, contents) = archive_of(&dir);
        assert_eq!(contents.entries, 0);
        restore(&archive, &dir.join("again"), contents).unwrap();
        assert_eq!(listing(&dir.join("again")), [""; 0]);
    }
}

#[test]
fn special_files_and_deep_entries_are_left_out_and_listed() {
    let fixture = fixture();
    let root = rustix::fs::open(&fixture.inside, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    mknodat(&root, "pipe", rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(fixture.inside.join("sock")).unwrap();
    // Create a directory tree that is deeper than the maximum depth of a path. It is built from the bottom up.
    mkdirat(&root, "d", Mode::RWXU).unwrap();
    for _ in 0..200 {
        mkdirat(&root, "above", Mode::RWXU).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let above = openat(&root, "above", flags, Mode::empty()).unwrap();
        renameat(&root, "d", &above, "d").unwrap();
        renameat(&root, "above", &root, "d").unwrap();
    }
    let (archive, contents) = archive_of(&fixture.inside);
    assert_eq!((contents.entries, contents.left_out), (64, 3));
    let manifest = manifest(&archive);
    for line in [
        "{\"path\":\"pipe\",\"left_out\":\"FIFO\"}\n",
        "{\"path\":\"sock\",\"left_out\":\"socket\"}\n",
        "\"left_out\":\"its path is too long or too deep\"}\n",
    ] {
        assert!(manifest.contains(line), "{line} in {manifest}");
    }
    restore(&archive, &fixture.inside.join("again"), contents).unwrap();
    assert!(fixture.inside.join("again").join(["d"; 64].join("/")).exists());
}

#[test]
fn holes_are_preserved_and_setuid_bits_are_dropped() {
    let fixture = fixture();
    write(&fixture.inside, "program", b"x", 0o6755);
    let sparse = File::create(fixture.inside.join("sparse")).unwrap();
    sparse.set_len(50_000_000).unwrap();
    let (archive, contents) = archive_of(&fixture.inside);
    assert_eq!(contents.bytes, 50_000_001);
    let again = fixture.inside.join("again");
    restore(&archive, &again, contents).unwrap();
    assert_eq!(fs::metadata(again.join("program")).unwrap().mode() & 0o7777, 0o755);
    let sparse = fs::metadata(again.join("sparse")).unwrap();
    assert_eq!(sparse.len(), 50_000_000);
    assert!(sparse.blocks() * 512 < 1_000_000);
}

/// Runs in a separate process as the user `nobody`, because file permissions do not restrict root.
#[test]
fn files_and_directories_without_permissions_are_restored() {
    let Some(dir) = std::env::var_os("HERM_TEST_DIR") else {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        let name = "workspace::archive::round_trip::files_and_directories_without_permissions_are_restored";
        return run_as_nobody(name, dir.path());
    };
    let (from, to) = (Path::new(&dir).join("from"), Path::new(&dir).join("to"));
    write(&from, "closed/file", b"closed", 0o644);
    for path in ["closed/file", "closed"] {
        fs::set_permissions(from.join(path), Permissions::from_mode(0o0)).unwrap();
    }
    assert!(File::open(from.join("closed")).is_err());
    let (archive, contents) = archive_of(&from);
    // Restore twice: the second restore must succeed despite the permissions that the first one has set.
    for _ in 0..2 {
        restore(&archive, &to, contents).unwrap();
        assert_eq!(fs::metadata(to.join("closed")).unwrap().mode() & 0o777, 0);
    }
    fs::set_permissions(to.join("closed"), Permissions::from_mode(0o700)).unwrap();
    assert_eq!(fs::metadata(to.join("closed/file")).unwrap().mode() & 0o777, 0);
    fs::set_permissions(to.join("closed/file"), Permissions::from_mode(0o600)).unwrap();
    assert_eq!(fs::read_to_string(to.join("closed/file")).unwrap(), "closed");
}

#[test]
fn existing_files_are_kept_and_files_of_an_interrupted_restore_are_replaced() {
    let fixture = fixture();
    write(&fixture.inside, "mine", b"from the snapshot", 0o644);
    write(&fixture.inside, "half", b"from the snapshot", 0o644);
    fs::hard_link(fixture.inside.join("half"), fixture.inside.join("half too")).unwrap();
    let (archive, contents) = archive_of(&fixture.inside);
    let again = fixture.outside.parent().unwrap().join("again");
    fs::create_dir(&again).unwrap();
    fs::write(again.join("mine"), "written meanwhile").unwrap();
    // Simulate the file that a power failure during a restore can leave behind: it has the modification time from the
    // archive, but no content.
    write(&again, "half", b"", 0o644);
    restore(&archive, &again, contents).unwrap();
    assert_eq!(fs::read_to_string(again.join("mine")).unwrap(), "written meanwhile");
    for name in ["half", "half too"] {
        assert_eq!(fs::read_to_string(again.join(name)).unwrap(), "from the snapshot");
    }
    assert_eq!(fs::metadata(again.join("half")).unwrap().nlink(), 2);
    assert_eq!(fs::read_dir(&again).unwrap().count(), 3, "no temporary file remains");
}

#[test]
fn an_entry_in_place_of_a_directory_is_reported_as_a_path_conflict() {
    let fixture = fixture();
    write(&fixture.inside, "a/b", b"x", 0o644);
    let (archive, contents) = archive_of(&fixture.inside);
    for (name, put) in [("file", true), ("link", false)] {
        let again = fixture.outside.parent().unwrap().join(name);
        fs::create_dir(&again).unwrap();
        match put {
            true => fs::write(again.join("a"), "a file").unwrap(),
            false => symlink(&fixture.outside, again.join("a")).unwrap(),
        }
        let refused = restore(&archive, &again, contents).unwrap_err();
        assert!(matches!(&refused, ArchiveError::PathConflict(path) if path == "a/b"), "{refused}");
    }
    fixture.assert_outside_unchanged();
}

#[test]
fn archiving_and_restoring_can_be_stopped() {
    let fixture = fixture();
    write(&fixture.inside, "a", b"x", 0o644);
    let (archive, contents) = archive_of(&fixture.inside);
    let stop = Stop::default();
    stop.stop();
    let scratch = tempfile::tempfile().unwrap();
    let written = archive::write(&fixture.inside, Vec::new(), scratch, &stop);
    assert!(matches!(written, Err(ArchiveError::Stopped)));
    let again = fixture.inside.join("again");
    assert!(matches!(archive::restore(&archive, &again, contents, &stop), Err(ArchiveError::Stopped)));
    assert!(!again.exists());
}

#[test]
fn a_full_disk_is_reported() {
    let fixture = fixture();
    write(&fixture.inside, "a", &vec![1; 300_000], 0o644);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let written =
        archive::write(&fixture.inside, full, tempfile::tempfile().unwrap(), &Stop::default()).unwrap_err();
    let is_full = matches!(written, ArchiveError::Files(herm_sandbox::workspace::Error::NoSpace));
    assert!(is_full, "{written}");
}

#[test]
fn a_tar_of_another_program_is_rejected() {
    let fixture = fixture();
    write(&fixture.inside, "a", b"x", 0o644);
    let output = Command::new("tar").args(["-c", "a"]).current_dir(&fixture.inside).output().unwrap();
    let (_, contents) = archive_of(&fixture.inside);
    let again = fixture.inside.join("again");
    assert!(matches!(restore(&packed(&output.stdout), &again, contents), Err(ArchiveError::Damaged(_))));
    assert!(!again.exists());
}
