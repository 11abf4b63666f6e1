//! Tests of archiving and restoring workspaces, including forged archives.

mod forged;
mod round_trip;

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use herm_sandbox::workspace::archive::{self, ArchiveError, Contents, Stop};

/// Archives the workspace in `dir`. Returns the archive and the size of its content.
fn archive_of(dir: &Path) -> (File, Contents) {
    let (out, scratch) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let (out, contents) = archive::write(dir, out, scratch, &Stop::default()).unwrap();
    (out, contents)
}

fn restore(archive: &File, dir: &Path, expected: Contents) -> Result<(), ArchiveError> {
    archive::restore(archive, dir, expected, &Stop::default())
}

/// Decompresses an archive and returns the bytes of the tar.
fn unpacked(mut archive: &File) -> Vec<u8> {
    archive.rewind().unwrap();
    let mut tar = Vec::new();
    zstd::Decoder::new(archive).unwrap().read_to_end(&mut tar).unwrap();
    tar
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn packed(tar: &[u8]) -> File {
    file_of(&zstd::encode_all(tar, 1).unwrap())
}

/// Returns an archive's manifest.
fn manifest(archive: &File) -> String {
    let tar = String::from_utf8_lossy(&unpacked(archive)).into_owned();
    let from = tar.find("{\"format\"").unwrap();
    tar[from..].trim_end_matches('\0').to_owned()
}
