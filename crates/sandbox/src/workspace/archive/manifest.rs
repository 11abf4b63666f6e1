//! The manifest's lines: each made of what the archive holds, so that the reader makes the same ones.

use serde_json::{Value, json};

use super::member::{Kind, Member};

/// The first line.
pub(super) const FIRST: &str = "{\"format\":\"herm-workspace\",\"version\":1}\n";

/// The line of a member; `sha256` is that of a file's bytes.
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

/// The line of an entry that the archive does not hold.
pub(super) fn left_out(path: &[u8], why: &str) -> String {
    format!("{}\n", json!({"path": text(path), "left_out": why}))
}

/// The line that counts what is left out and not named.
pub(super) fn more_left_out(count: u64) -> String {
    format!("{}\n", json!({"left_out_too": count}))
}

/// A path as text; as hexadecimal digits if it is none.
fn text(path: &[u8]) -> Value {
    match std::str::from_utf8(path) {
        Ok(text) => text.into(),
        Err(_) => json!({"hex": hex(path)}),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
