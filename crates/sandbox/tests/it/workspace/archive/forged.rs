use std::fs;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};

use herm_sandbox::workspace::archive::{ArchiveError, Contents};

use super::{archive_of, file_of, packed, restore, unpacked};
use crate::workspace::{Fixture, fixture};

const BLOCK: usize = 512;

/// Replaces every occurrence of `from` in a tar with `to`, which must have the same length. Then corrects the checksums
/// of all tar headers.
fn forge(tar: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut forged = tar.to_vec();
    let mut found = false;
    for at in 0..=forged.len() - from.len() {
        if forged[at..].starts_with(from.as_bytes()) {
            forged[at..at + to.len()].copy_from_slice(to.as_bytes());
            found = true;
        }
    }
    assert!(found, "{from} does not occur");
    with_checksums(forged)
}

fn with_checksums(mut tar: Vec<u8>) -> Vec<u8> {
    for block in tar.chunks_exact_mut(BLOCK).filter(|block| block[257..].starts_with(b"ustar")) {
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}

/// Archives a workspace with two files, a hard link to one of them, a directory that contains a file, and a symbolic
/// link to the directory outside the workspace. Returns the tar.
fn valid_archive(fixture: &Fixture) -> (Vec<u8>, Contents) {
    fs::write(fixture.inside.join("aa"), "what is in aa").unwrap();
    fs::write(fixture.inside.join("ab"), "what is in ab").unwrap();
    fs::hard_link(fixture.inside.join("aa"), fixture.inside.join("ac")).unwrap();
    fs::create_dir(fixture.inside.join("dd")).unwrap();
    fs::write(fixture.inside.join("dd/x"), "x").unwrap();
    fs::set_permissions(fixture.inside.join("dd/x"), fs::Permissions::from_mode(0o741)).unwrap();
    symlink(&fixture.outside, fixture.inside.join("ln")).unwrap();
    let (archive, contents) = archive_of(&fixture.inside);
    (unpacked(&archive), contents)
}

/// Asserts that restoring a forged archive fails and leaves nothing behind. Returns the reason that the error contains.
fn rejection(fixture: &Fixture, tar: &[u8], contents: Contents) -> String {
    let again = fixture.inside.join("again");
    let refused = restore(&packed(tar), &again, contents);
    assert!(!again.exists(), "a rejected archive left something behind");
    fixture.assert_outside_unchanged();
    match refused {
        Err(ArchiveError::Damaged(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn members_that_lead_outside_are_rejected() {
    let fixture = fixture();
    let (tar, contents) = valid_archive(&fixture);
    let invalid_path = "is not a valid path";
    for (from, to, reason) in [
        ("workspace/ab", "workspace/..", invalid_path),
        ("workspace/ab", "/orkspace/ab", invalid_path),
        ("workspace/ab", "workspace/\0b", invalid_path),
        ("workspace/ab", "workspace//b", invalid_path),
        ("workspace/ab", "../kspace/ab", invalid_path),
        ("workspace/dd/x", "workspace/../x", invalid_path),
        ("workspace/dd/x", "workspace/dd/.", invalid_path),
        ("path=workspace/ab", "path=workspace/aa", "occurs twice"),
        ("path=workspace/ab", "path=workspace/dd", ""),
        ("path=workspace/ln", "path=workspace/dd", ""),
        // The file's parent is a symbolic link in the first case and another file in the second.
        ("path=workspace/dd/x", "path=workspace/ln/x", ""),
        ("path=workspace/dd/x", "path=workspace/ab/x", ""),
        ("linkpath=workspace/", "linkpath=/orkspace/", invalid_path),
        ("linkpath=workspace/a", "linkpath=workspace/z", "hard link to a file that is not"),
        ("linkpath=workspace/a", "linkpath=workspace/.", ""),
    ] {
        let rejected = rejection(&fixture, &forge(&tar, from, to), contents);
        assert!(rejected.contains(reason), "{from} as {to}: {rejected}");
    }
}

#[test]
fn a_hard_link_to_a_symbolic_link_is_rejected() {
    let fixture = fixture();
    let (tar, contents) = valid_archive(&fixture);
    let text = String::from_utf8_lossy(&tar).into_owned();
    let first = if text.contains("linkpath=workspace/aa") { "aa" } else { "ac" };
    let forged = forge(&tar, &format!("linkpath=workspace/{first}"), "linkpath=workspace/ln");
    assert!(rejection(&fixture, &forged, contents).contains("hard link to a file that is not"));
}

/// Returns the tar header of the member with this path.
fn header_of<'a>(tar: &'a mut [u8], path: &str) -> &'a mut [u8] {
    let mut blocks = tar.chunks_exact_mut(BLOCK);
    blocks.find(|block| block.starts_with(format!("{path}\0").as_bytes())).unwrap()
}

#[test]
fn members_of_other_types_are_rejected() {
    let fixture = fixture();
    let (tar, contents) = valid_archive(&fixture);
    // The type flags of devices, FIFOs, GNU sparse files, GNU long names and global headers, and unknown type flags.
    for kind in b"346SLKgxDVMN7\0" {
        let mut forged = tar.clone();
        header_of(&mut forged, "workspace/ab")[156] = *kind;
        let reason = rejection(&fixture, &with_checksums(forged), contents);
        assert!(reason.contains("not a file, directory or link"), "{}: {reason}", *kind as char);
    }
}

#[test]
fn records_that_the_writer_does_not_create_are_rejected() {
    let fixture = fixture();
    let (tar, contents) = valid_archive(&fixture);
    for (from, to) in [
        ("size=13", "sise=13"),
        (" mtime=", " xtime="),
        (" mtime=", " mtime-"),
        ("size=13", "size=-3"),
        ("size=13", "size=99"),
        ("size=1\n", "size=\n\n"),
    ] {
        rejection(&fixture, &forge(&tar, from, to), contents);
    }
    // Forge a pax record that claims to be longer than its pax header.
    let mut forged = tar.clone();
    let record = b" path=workspace/ab";
    let at = forged.windows(record.len()).position(|bytes| bytes == record).unwrap();
    forged[at - 2..at].copy_from_slice(b"99");
    assert!(rejection(&fixture, &forged, contents).contains("pax header is malformed"));
    // Forge a pax header that is longer than the maximum.
    let mut forged = tar;
    header_of(&mut forged, "PaxHeader")[124..135].copy_from_slice(b"77777777777");
    assert!(rejection(&fixture, &with_checksums(forged), contents).contains("too long"));
}

#[test]
fn members_that_do_not_match_the_manifest_are_rejected() {
    let fixture = fixture();
    let (tar, contents) = valid_archive(&fixture);
    for (from, to) in [
        ("what is in aa", "what is in zz"),
        ("\"size\":13", "\"size\":14"),
        ("\"mode\":\"0741\"", "\"mode\":\"0777\""),
        ("\"version\":1", "\"version\":2"),
        ("\"path\":\"ab\"", "\"path\":\"..\""),
    ] {
        let reason = rejection(&fixture, &forge(&tar, from, to), contents);
        assert_eq!(reason, "the members do not match the manifest", "{from}");
    }
    let mut forged = tar;
    header_of(&mut forged, "workspace/dd/x")[100..107].copy_from_slice(b"0000777");
    assert_eq!(
        rejection(&fixture, &with_checksums(forged), contents),
        "the members do not match the manifest"
    );
}

#[test]
fn setuid_and_setgid_bits_are_dropped() {
    let fixture = fixture();
    let (mut tar, contents) = valid_archive(&fixture);
    header_of(&mut tar, "workspace/dd/x")[100..107].copy_from_slice(b"0007741");
    let again = fixture.inside.join("again");
    restore(&packed(&with_checksums(tar)), &again, contents).unwrap();
    assert_eq!(fs::metadata(again.join("dd/x")).unwrap().permissions().mode() & 0o7777, 0o741);
}

#[test]
fn an_archive_of_unexpected_size_is_rejected_before_anything_is_written() {
    let fixture = fixture();
    let (tar, contents) = valid_archive(&fixture);
    for expected in [
        Contents { entries: contents.entries - 1, ..contents },
        Contents { bytes: contents.bytes - 1, ..contents },
        Contents { entries: contents.entries + 1, ..contents },
        Contents { bytes: contents.bytes + 1, ..contents },
        Contents::default(),
    ] {
        rejection(&fixture, &tar, expected);
    }
}

#[test]
fn an_oversized_decompression_window_is_rejected() {
    let fixture = fixture();
    let (tar, contents) = valid_archive(&fixture);
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&tar).unwrap();
    let archive = file_of(&encoder.finish().unwrap());
    let again = fixture.inside.join("again");
    assert!(matches!(restore(&archive, &again, contents), Err(ArchiveError::Damaged(_))));
    assert!(!again.exists());
}

#[test]
fn a_truncated_or_mutated_archive_is_rejected_and_leaves_nothing_behind() {
    let fixture = fixture();
    valid_archive(&fixture);
    let (mut archive, contents) = archive_of(&fixture.inside);
    let mut whole = Vec::new();
    archive.rewind().unwrap();
    archive.read_to_end(&mut whole).unwrap();
    let again = fixture.inside.join("again");
    let assert_rejected = |bytes: &[u8], case: String| {
        let refused = restore(&file_of(bytes), &again, contents);
        assert!(matches!(refused, Err(ArchiveError::Damaged(_))), "{case}: {refused:?}");
        assert!(!again.exists(), "{case}");
    };
    for end in 0..whole.len() {
        assert_rejected(&whole[..end], format!("truncated at {end}"));
    }
    let mut harmless = 0;
    for at in 0..whole.len() {
        let mut mutated = whole.clone();
        mutated[at] ^= 0x10;
        // Changing some bits of the compressed data does not change the content. The number of these bits depends on
        // the timestamps in the archive.
        if restore(&file_of(&mutated), &fixture.inside.join("mutated"), contents).is_ok() {
            harmless += 1;
        } else {
            assert_rejected(&mutated, format!("mutated at {at}"));
        }
    }
    assert!(harmless * 40 < whole.len(), "{harmless} of {}", whole.len());
    assert_rejected(&[whole.as_slice(), b"x"].concat(), "with more".to_owned());
    assert_rejected(&[whole.as_slice(), &whole].concat(), "twice".to_owned());
    let tar = unpacked(&archive);
    assert_rejected(
        &zstd::encode_all(&[tar.as_slice(), &[0; BLOCK]].concat()[..], 1).unwrap(),
        "longer".to_owned(),
    );
    for end in (0..tar.len()).step_by(64) {
        assert_rejected(&zstd::encode_all(&tar[..end], 1).unwrap(), format!("a tar truncated at {end}"));
    }
}
