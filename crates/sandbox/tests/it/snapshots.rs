//! Tests of snapshot storage: only the server's user can read snapshots, and unfinished snapshots leave nothing behind.

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
fn a_committed_snapshot_is_visible_and_private() {
    let dir = tempfile::tempdir().unwrap();
    let (workspace, stored) = (dir.path().join("workspace"), dir.path().join("snapshots"));
    fs::create_dir(&workspace).unwrap();
    fs::write(workspace.join("file"), "old").unwrap();
    let (snapshots, id, stop) = (Snapshots::new(stored.clone()), new_id(), Stop::default());
    let uncommitted = snapshots.write(id, &workspace, &stop).unwrap();
    assert!(snapshots.open(id).is_err());
    drop(uncommitted);
    assert!(names(&stored).is_empty());
    let pending = snapshots.write(id, &workspace, &stop).unwrap();
    // A sweep does not remove the partial file of a snapshot that is still being written, and does not return the
    // snapshot's id.
    assert_eq!(snapshots.sweep().unwrap(), []);
    let contents = pending.contents;
    pending.commit().unwrap();
    assert_eq!((names(&stored), snapshots.sweep().unwrap()), (vec![format!("{id}.tar.zst")], vec![id]));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&stored), mode(&stored.join(format!("{id}.tar.zst")))), (0o700, 0o600));
    // A second snapshot with the same id replaces the first.
    fs::write(workspace.join("file"), "new").unwrap();
    snapshots.write(id, &workspace, &stop).unwrap().commit().unwrap();
    snapshots.restore(id, &dir.path().join("again"), contents, &stop).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("again/file")).unwrap(), "new");
    snapshots.remove(id).unwrap();
    snapshots.remove(id).unwrap();
    assert!(names(&stored).is_empty());
    let restored = snapshots.restore(id, &dir.path().join("never"), contents, &stop);
    assert!(matches!(restored, Err(ArchiveError::Files(herm_sandbox::workspace::Error::NotFound))));
    assert!(!dir.path().join("never").exists());
}

#[test]
fn a_sweep_removes_partial_files_left_by_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::new(dir.path().to_owned());
    fs::write(dir.path().join(".herm-0123456789abcdef0123456789abcdef.tmp.partial"), "half").unwrap();
    fs::write(dir.path().join("notes"), "an operator's own").unwrap();
    assert_eq!(snapshots.sweep().unwrap(), []);
    assert_eq!(names(dir.path()), ["notes"]);
    assert_eq!(Snapshots::new(dir.path().join("none")).sweep().unwrap(), []);
}
