//! The directory of snapshots: whole files for the server alone, and nothing of those that were not finished.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use herm_sandbox::snapshots::Snapshots;
use herm_sandbox::workspace::archive::{ArchiveError, Stop};
use herm_types::time::{SystemClock, SystemRng};
use herm_types::{IdSource, SnapshotId};

fn new_id() -> SnapshotId {
    IdSource::new(Arc::new(SystemClock), Arc::new(SystemRng)).next()
}

fn names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_snapshot_is_there_when_it_has_its_name_and_nobody_else_may_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let (workspace, kept) = (dir.path().join("workspace"), dir.path().join("snapshots"));
    fs::create_dir(&workspace).unwrap();
    fs::write(workspace.join("file"), "kept").unwrap();
    let (snapshots, id, stop) = (Snapshots::new(kept.clone()), new_id(), Stop::default());
    let given_up = snapshots.write(id, &workspace, &stop).unwrap();
    assert!(snapshots.open(id).is_err());
    drop(given_up);
    assert!(names(&kept).is_empty());
    let pending = snapshots.write(id, &workspace, &stop).unwrap();
    // Who sweeps leaves alone what is still written.
    assert_eq!(snapshots.sweep().unwrap(), []);
    let contents = pending.contents;
    pending.put().unwrap();
    assert_eq!((names(&kept), snapshots.sweep().unwrap()), (vec![format!("{id}.tar.zst")], vec![id]));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&kept), mode(&kept.join(format!("{id}.tar.zst")))), (0o700, 0o600));
    // A second one takes its place.
    fs::write(workspace.join("file"), "anew").unwrap();
    snapshots.write(id, &workspace, &stop).unwrap().put().unwrap();
    snapshots.restore(id, &dir.path().join("again"), contents, &stop).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("again/file")).unwrap(), "anew");
    snapshots.remove(id).unwrap();
    snapshots.remove(id).unwrap();
    assert!(names(&kept).is_empty());
    let gone = snapshots.restore(id, &dir.path().join("never"), contents, &stop);
    assert!(matches!(gone, Err(ArchiveError::Files(herm_sandbox::workspace::Error::NotFound))));
    assert!(!dir.path().join("never").exists());
}

#[test]
fn what_a_crash_left_goes_with_the_next_sweep() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::new(dir.path().to_owned());
    fs::write(dir.path().join(".herm-0123456789abcdef0123456789abcdef.tmp.partial"), "half").unwrap();
    fs::write(dir.path().join("notes"), "an operator's own").unwrap();
    assert_eq!(snapshots.sweep().unwrap(), []);
    assert_eq!(names(dir.path()), ["notes"]);
    assert_eq!(Snapshots::new(dir.path().join("none")).sweep().unwrap(), []);
}
