//! Tests against an agent that swaps files or directories for symbolic links while the server resolves a path.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{Fixture, SECRET, fixture, path};
use crate::rounds;

const LIMIT: u64 = 1024;

/// Runs `work` while another thread repeatedly swaps the entries `swapped` and `link`.
fn while_swapped(fixture: &Fixture, swapped: &str, work: impl FnOnce()) {
    let (swapped, link) = (fixture.inside.join(swapped), fixture.inside.join("link"));
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::SeqCst) {
                renameat_with(CWD, &swapped, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        // Catch panics: if an assertion in `work` failed, the other thread would otherwise never stop.
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        is_done.store(true, Ordering::SeqCst);
        if let Err(panic) = worked {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn a_directory_swapped_for_a_link_does_not_lead_outside() {
    let fixture = fixture();
    fs::create_dir_all(fixture.inside.join("a/d")).unwrap();
    fs::write(fixture.inside.join("a/d/secret"), "mine").unwrap();
    symlink(&fixture.outside, fixture.inside.join("link")).unwrap();
    while_swapped(&fixture, "a/d", || {
        // Read the path normally until a read follows the link and escapes the workspace. This shows that the attack
        // works.
        let plain = fixture.inside.join("a/d/secret");
        while fs::read_to_string(&plain).unwrap() != SECRET {}
        let mut reads = 0;
        let mut round = 0;
        while round < rounds(300) || reads == 0 {
            round += 1;
            if let Ok(bytes) = fixture.workspace.read(&path("a/d/secret"), LIMIT) {
                assert_ne!(bytes, SECRET.as_bytes(), "the read followed the link outside");
                reads += 1;
            }
            if let Ok(entries) = fixture.workspace.list(&path("a/d")) {
                assert!(entries.iter().all(|entry| entry.size != Some(SECRET.len() as u64)), "{entries:?}");
            }
            // Ignore errors: these writes fail while the link is in the directory's place.
            let _ = fixture.workspace.write_atomic(&path("a/d/secret"), b"mine!", LIMIT);
            let _ = fixture.workspace.write_atomic(&path("a/d/new/deep"), b"mine", LIMIT);
        }
    });
    fixture.assert_outside_unchanged();
}

#[test]
fn a_file_swapped_for_a_link_is_not_followed() {
    let fixture = fixture();
    fs::write(fixture.inside.join("file"), "mine").unwrap();
    symlink(fixture.outside.join("secret"), fixture.inside.join("link")).unwrap();
    while_swapped(&fixture, "file", || {
        while fs::read_to_string(fixture.inside.join("file")).unwrap() != SECRET {}
        for _ in 0..rounds(2_000) {
            if let Ok(bytes) = fixture.workspace.read(&path("file"), LIMIT) {
                assert_ne!(bytes, SECRET.as_bytes(), "the read followed the link outside");
            }
        }
    });
    fixture.assert_outside_unchanged();
}

/// A write replaces the entry at its path, whether that is the file or the link at that moment. In both cases, the file
/// outside the workspace is unchanged.
#[test]
fn a_write_to_an_entry_that_is_swapped_replaces_only_the_entry() {
    let fixture = fixture();
    for _ in 0..rounds(200) {
        let (file, link) = (fixture.inside.join("file"), fixture.inside.join("link"));
        // Ignore errors: after the previous round, there may be a file at `link`, or nothing.
        let _ = fs::remove_file(&link);
        let _ = fs::write(&file, "mine");
        symlink(fixture.outside.join("secret"), &link).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| renameat_with(CWD, &file, CWD, &link, RenameFlags::EXCHANGE).unwrap());
            fixture.workspace.write_atomic(&path("file"), b"new", LIMIT).unwrap();
        });
        let _ = fs::remove_file(&file);
        fixture.assert_outside_unchanged();
    }
}
