use std::fs;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};

use herm_sandbox::workspace::archive::{ArchiveError, Contents};

use super::{archive_of, file_of, packed, restore, unpacked};
use crate::workspace::{Ground, ground};

const BLOCK: usize = 512;

/// Puts a text in the place of another one of its length, everywhere; the sums of all headers are made right again.
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
    assert!(found, "{from} is not there");
    with_sums(forged)
}

fn with_sums(mut tar: Vec<u8>) -> Vec<u8> {
    for block in tar.chunks_exact_mut(BLOCK).filter(|block| block[257..].starts_with(b"ustar")) {
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}

/// Two files, one with two names, a directory with a file, and a symbolic link to the outside.
fn genuine(ground: &Ground) -> (Vec<u8>, Contents) {
    fs::write(ground.inside.join("aa"), "what is in aa").unwrap();
    fs::write(ground.inside.join("ab"), "what is in ab").unwrap();
    fs::hard_link(ground.inside.join("aa"), ground.inside.join("ac")).unwrap();
    fs::create_dir(ground.inside.join("dd")).unwrap();
    fs::write(ground.inside.join("dd/x"), "x").unwrap();
    fs::set_permissions(ground.inside.join("dd/x"), fs::Permissions::from_mode(0o741)).unwrap();
    symlink(&ground.outside, ground.inside.join("ln")).unwrap();
    let (archive, contents) = archive_of(&ground.inside);
    (unpacked(&archive), contents)
}

/// What a forged archive is refused with; it must leave nothing, inside or outside.
fn refusal(ground: &Ground, tar: &[u8], contents: Contents) -> String {
    let again = ground.inside.join("again");
    let refused = restore(&packed(tar), &again, contents);
    assert!(!again.exists(), "something is left of an archive that was refused");
    ground.outside_is_as_it_was();
    match refused {
        Err(ArchiveError::Damaged(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn members_that_lead_anywhere_else_are_refused() {
    let ground = ground();
    let (tar, contents) = genuine(&ground);
    let no_path = "is no path in it";
    for (from, to, why) in [
        ("workspace/ab", "workspace/..", no_path),
        ("workspace/ab", "/orkspace/ab", no_path),
        ("workspace/ab", "workspace/\0b", no_path),
        ("workspace/ab", "workspace//b", no_path),
        ("workspace/ab", "../kspace/ab", no_path),
        ("workspace/dd/x", "workspace/../x", no_path),
        ("workspace/dd/x", "workspace/dd/.", no_path),
        ("path=workspace/ab", "path=workspace/aa", "is there twice"),
        ("path=workspace/ab", "path=workspace/dd", ""),
        ("path=workspace/ln", "path=workspace/dd", ""),
        // A file beyond a symbolic link, be it before or after the link itself.
        ("path=workspace/dd/x", "path=workspace/ln/x", ""),
        ("path=workspace/dd/x", "path=workspace/ab/x", ""),
        ("linkpath=workspace/", "linkpath=/orkspace/", no_path),
        ("linkpath=workspace/a", "linkpath=workspace/z", "another name of no file"),
        ("linkpath=workspace/a", "linkpath=workspace/.", ""),
    ] {
        let refused = refusal(&ground, &forge(&tar, from, to), contents);
        assert!(refused.contains(why), "{from} as {to}: {refused}");
    }
}

#[test]
fn a_hard_link_to_a_symbolic_one_is_refused() {
    let ground = ground();
    let (tar, contents) = genuine(&ground);
    let text = String::from_utf8_lossy(&tar).into_owned();
    let first = if text.contains("linkpath=workspace/aa") { "aa" } else { "ac" };
    let forged = forge(&tar, &format!("linkpath=workspace/{first}"), "linkpath=workspace/ln");
    assert!(refusal(&ground, &forged, contents).contains("another name of no file"));
}

/// The block of a member's own header, by its path.
fn header_of<'a>(tar: &'a mut [u8], path: &str) -> &'a mut [u8] {
    let mut blocks = tar.chunks_exact_mut(BLOCK);
    blocks.find(|block| block.starts_with(format!("{path}\0").as_bytes())).unwrap()
}

#[test]
fn members_of_other_kinds_are_refused() {
    let ground = ground();
    let (tar, contents) = genuine(&ground);
    // Devices, FIFOs, GNU's sparse files and long names, global headers, what is not known.
    for kind in b"346SLKgxDVMN7\0" {
        let mut forged = tar.clone();
        header_of(&mut forged, "workspace/ab")[156] = *kind;
        let why = refusal(&ground, &with_sums(forged), contents);
        assert!(why.contains("neither a file nor a directory nor a link"), "{}: {why}", *kind as char);
    }
}

#[test]
fn records_that_the_writer_does_not_make_are_refused() {
    let ground = ground();
    let (tar, contents) = genuine(&ground);
    for (from, to) in [
        ("size=13", "sise=13"),
        (" mtime=", " xtime="),
        (" mtime=", " mtime-"),
        ("size=13", "size=-3"),
        ("size=13", "size=99"),
        ("size=1\n", "size=\n\n"),
    ] {
        refusal(&ground, &forge(&tar, from, to), contents);
    }
    // A record that says it is longer than all of them.
    let mut forged = tar.clone();
    let record = b" path=workspace/ab";
    let at = forged.windows(record.len()).position(|bytes| bytes == record).unwrap();
    forged[at - 2..at].copy_from_slice(b"99");
    assert!(refusal(&ground, &forged, contents).contains("pax header cannot be read"));
    // A header that says there is more than anybody reads.
    let mut forged = tar;
    header_of(&mut forged, "PaxHeader")[124..135].copy_from_slice(b"77777777777");
    assert!(refusal(&ground, &with_sums(forged), contents).contains("too long"));
}

#[test]
fn files_that_are_not_those_of_the_manifest_are_refused() {
    let ground = ground();
    let (tar, contents) = genuine(&ground);
    for (from, to) in [
        ("what is in aa", "what is in zz"),
        ("\"size\":13", "\"size\":14"),
        ("\"mode\":\"0741\"", "\"mode\":\"0777\""),
        ("\"version\":1", "\"version\":2"),
        ("\"path\":\"ab\"", "\"path\":\"..\""),
    ] {
        let why = refusal(&ground, &forge(&tar, from, to), contents);
        assert_eq!(why, "its files are not those of its manifest", "{from}");
    }
    let mut forged = tar;
    header_of(&mut forged, "workspace/dd/x")[100..107].copy_from_slice(b"0000777");
    assert_eq!(refusal(&ground, &with_sums(forged), contents), "its files are not those of its manifest");
}

#[test]
fn rights_that_make_somebody_else_are_dropped() {
    let ground = ground();
    let (mut tar, contents) = genuine(&ground);
    header_of(&mut tar, "workspace/dd/x")[100..107].copy_from_slice(b"0007741");
    let again = ground.inside.join("again");
    restore(&packed(&with_sums(tar)), &again, contents).unwrap();
    assert_eq!(fs::metadata(again.join("dd/x")).unwrap().permissions().mode() & 0o7777, 0o741);
}

#[test]
fn more_than_it_was_made_of_is_refused_before_it_is_written() {
    let ground = ground();
    let (tar, contents) = genuine(&ground);
    for expected in [
        Contents { entries: contents.entries - 1, ..contents },
        Contents { bytes: contents.bytes - 1, ..contents },
        Contents { entries: contents.entries + 1, ..contents },
        Contents { bytes: contents.bytes + 1, ..contents },
        Contents::default(),
    ] {
        refusal(&ground, &tar, expected);
    }
}

#[test]
fn a_window_that_takes_much_memory_is_refused() {
    let ground = ground();
    let (tar, contents) = genuine(&ground);
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&tar).unwrap();
    let archive = file_of(&encoder.finish().unwrap());
    let again = ground.inside.join("again");
    assert!(matches!(restore(&archive, &again, contents), Err(ArchiveError::Damaged(_))));
    assert!(!again.exists());
}

#[test]
fn what_is_cut_off_or_spoilt_anywhere_is_refused_and_leaves_nothing() {
    let ground = ground();
    genuine(&ground);
    let (mut archive, contents) = archive_of(&ground.inside);
    let mut whole = Vec::new();
    archive.rewind().unwrap();
    archive.read_to_end(&mut whole).unwrap();
    let again = ground.inside.join("again");
    let refused = |bytes: &[u8], what: String| {
        let refused = restore(&file_of(bytes), &again, contents);
        assert!(matches!(refused, Err(ArchiveError::Damaged(_))), "{what}: {refused:?}");
        assert!(!again.exists(), "{what}");
    };
    for end in 0..whole.len() {
        refused(&whole[..end], format!("cut off at {end}"));
    }
    let mut harmless = 0;
    for at in 0..whole.len() {
        let mut spoilt = whole.clone();
        spoilt[at] ^= 0x10;
        // A few bits of what is compressed say nothing: how many, the times in the archive decide.
        if restore(&file_of(&spoilt), &ground.inside.join("spoilt"), contents).is_ok() {
            harmless += 1;
        } else {
            refused(&spoilt, format!("spoilt at {at}"));
        }
    }
    assert!(harmless * 40 < whole.len(), "{harmless} of {}", whole.len());
    refused(&[whole.as_slice(), b"x"].concat(), "with more".to_owned());
    refused(&[whole.as_slice(), &whole].concat(), "twice".to_owned());
    let tar = unpacked(&archive);
    refused(&zstd::encode_all(&[tar.as_slice(), &[0; BLOCK]].concat()[..], 1).unwrap(), "longer".to_owned());
    for end in (0..tar.len()).step_by(64) {
        refused(&zstd::encode_all(&tar[..end], 1).unwrap(), format!("a tar cut off at {end}"));
    }
}
