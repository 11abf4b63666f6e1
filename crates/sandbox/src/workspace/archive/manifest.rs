//! Creates the lines of an archive's manifest. The line of an archive member depends only on the member itself, so the
//! reader of an archive can compute the lines again and compare them with the stored ones.

use serde_json::{Value, json};

use super::member::{Kind, Member};

/// The first line of every manifest.
pub(super) const FIRST: &str = "{\"format\":\"herm-workspace\",\"version\":1}\n";

/// Returns the manifest line for a member. `sha256` is the hash of the content if the member is a file.
pub(super) fn line(member: &Member, sha256: Option<&[u8]>) -> String {
    let kind = match member.kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Symlink => "symlink",
        Kind::HardLink => "hardlink",
    };
    let mut line = json!({"path": text(&member.path), "type": kind});
    if let (Some(fields), true) = (line.as_object_mut(), member.kind == Kind::File) {
        fields.insert("size".to_owned(), member.size.into());
    }
    if let Some(fields) = line.as_object_mut() {
        fields.insert("mode".to_owned(), format!("{:04o}", member.mode).into());
        fields.insert("mtime".to_owned(), member.mtime.to_string().into());
        if let Some(target) = &member.target {
            fields.insert("target".to_owned(), text(target));
        }
        if let Some(sha256) = sha256 {
            fields.insert("sha256".to_owned(), hex(sha256).into());
        }
    }
    format!("{line}\n")
}

/// Returns the manifest line for an entry that was omitted from the archive.
pub(super) fn left_out(path: &[u8], why: &str) -> String {
    format!("{}\n", json!({"path": text(path), "left_out": why}))
}

/// Returns the last line of a manifest that does not list all omitted entries. `count` is the number of entries missing
/// from the list.
pub(super) fn more_left_out(count: u64) -> String {
    format!("{}\n", json!({"left_out_too": count}))
}

/// Encodes a path as a JSON string, or as hexadecimal digits if the path is not UTF-8.
fn text(path: &[u8]) -> Value {
    match std::str::from_utf8(path) {
        Ok(text) => text.into(),
        Err(_) => json!({"hex": hex(path)}),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
