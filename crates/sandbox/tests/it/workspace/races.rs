//! An agent that swaps directories for links while the host is on its way through them.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{Ground, SECRET, ground, path};
use crate::rounds;

const LIMIT: u64 = 1024;

/// Does `work` while another thread swaps `swapped` and `link`, back and forth.
fn while_swapped(ground: &Ground, swapped: &str, work: impl FnOnce()) {
    let (swapped, link) = (ground.inside.join(swapped), ground.inside.join("link"));
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::SeqCst) {
                renameat_with(CWD, &swapped, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        // Also when an assertion fails, or the other thread would go on for ever.
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        is_done.store(true, Ordering::SeqCst);
        if let Err(panic) = worked {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn a_directory_that_becomes_a_link_on_the_way_leads_nowhere() {
    let ground = ground();
    fs::create_dir_all(ground.inside.join("a/d")).unwrap();
    fs::write(ground.inside.join("a/d/secret"), "mine").unwrap();
    symlink(&ground.outside, ground.inside.join("link")).unwrap();
    while_swapped(&ground, "a/d", || {
        // The race is a real one: who follows links is led outside by it.
        let plain = ground.inside.join("a/d/secret");
        while fs::read_to_string(&plain).unwrap() != SECRET {}
        let mut reads = 0;
        let mut round = 0;
        while round < rounds(300) || reads == 0 {
            round += 1;
            if let Ok(bytes) = ground.workspace.read(&path("a/d/secret"), LIMIT) {
                assert_ne!(bytes, SECRET.as_bytes(), "the host was led outside");
                reads += 1;
            }
            if let Ok(entries) = ground.workspace.list(&path("a/d")) {
                assert!(entries.iter().all(|entry| entry.size != Some(SECRET.len() as u64)), "{entries:?}");
            }
            // One that fails met the link.
            let _ = ground.workspace.write_atomic(&path("a/d/secret"), b"mine!", LIMIT);
            let _ = ground.workspace.write_atomic(&path("a/d/new/deep"), b"mine", LIMIT);
        }
    });
    ground.outside_is_as_it_was();
}

#[test]
fn a_file_that_becomes_a_link_is_not_followed() {
    let ground = ground();
    fs::write(ground.inside.join("file"), "mine").unwrap();
    symlink(ground.outside.join("secret"), ground.inside.join("link")).unwrap();
    while_swapped(&ground, "file", || {
        while fs::read_to_string(ground.inside.join("file")).unwrap() != SECRET {}
        for _ in 0..rounds(2_000) {
            if let Ok(bytes) = ground.workspace.read(&path("file"), LIMIT) {
                assert_ne!(bytes, SECRET.as_bytes(), "the host was led outside");
            }
        }
    });
    ground.outside_is_as_it_was();
}

/// A write replaces what has the name, be it the link or the file: either way what lies outside stays as it was.
#[test]
fn a_write_to_a_name_that_changes_hits_the_name_alone() {
    let ground = ground();
    for _ in 0..rounds(200) {
        let (file, link) = (ground.inside.join("file"), ground.inside.join("link"));
        // Only the name `file` is raced for: what was `link` before may be gone by now.
        let _ = fs::remove_file(&link);
        let _ = fs::write(&file, "mine");
        symlink(ground.outside.join("secret"), &link).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| renameat_with(CWD, &file, CWD, &link, RenameFlags::EXCHANGE).unwrap());
            ground.workspace.write_atomic(&path("file"), b"new", LIMIT).unwrap();
        });
        let _ = fs::remove_file(&file);
        ground.outside_is_as_it_was();
    }
}
