//! The files of a workspace, as the API lists them, and the preconditions for writing them.

use serde::Serialize;

use crate::time::Timestamp;

/// The type of a directory entry. The API lists symbolic links but never follows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileType {
    File,
    Directory,
    Symlink,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FileEntry {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: FileType,
    /// The size in bytes. Absent for directories and symbolic links.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    pub modified_at: Timestamp,
}

/// The entries of a directory, sorted by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FileListing {
    /// The path of the directory, relative to the workspace root. Empty for the root itself.
    pub path: String,
    pub entries: Vec<FileEntry>,
}

/// The file that a write request has created or replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct WrittenFile {
    /// The path of the file, relative to the workspace root.
    pub path: String,
    /// The size in bytes.
    pub size: u64,
    pub modified_at: Timestamp,
}

/// A condition for writing or deleting a file (RFC 9110, section 13). If it does not hold, the file stays
/// unchanged. `Precondition::default()` always holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    /// `If-Match`: holds only if the file exists and has one of these entity tags.
    pub if_match: Option<EntityTags>,
    /// `If-None-Match`: does not hold if the file exists and has one of these entity tags.
    pub if_none_match: Option<EntityTags>,
}

/// The entity tags that a precondition lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntityTags {
    /// `*`, which matches any existing file.
    Any,
    /// A list of tags, without their quotes. A file matches if its tag is in the list.
    OneOf(Vec<String>),
}

impl EntityTags {
    /// Returns true if an existing file with the entity tag `tag` matches.
    pub fn contains(&self, tag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(tags) => tags.iter().any(|one| one == tag),
        }
    }
}

impl Precondition {
    /// Returns true if the precondition holds for a file with the entity tag `current`, or for a missing file
    /// if `current` is `None`.
    pub fn holds(&self, current: Option<&str>) -> bool {
        let matches = |tags: &EntityTags| current.is_some_and(|current| tags.contains(current));
        self.if_match.as_ref().is_none_or(matches) && !self.if_none_match.as_ref().is_some_and(matches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precondition_holds_only_for_matching_files() {
        let one_of =
            |tags: &[&str]| Some(EntityTags::OneOf(tags.iter().map(|tag| (*tag).to_owned()).collect()));
        let (any, always) = (Some(EntityTags::Any), Precondition::default());
        assert!(always.holds(None) && always.holds(Some("a")));
        let exists = Precondition { if_match: any.clone(), ..always.clone() };
        assert!(exists.holds(Some("a")) && !exists.holds(None));
        let same = Precondition { if_match: one_of(&["a", "b"]), ..always.clone() };
        assert!(same.holds(Some("b")) && !same.holds(Some("c")) && !same.holds(None));
        let is_new = Precondition { if_none_match: any, ..always.clone() };
        assert!(is_new.holds(None) && !is_new.holds(Some("a")));
        let other = Precondition { if_none_match: one_of(&["a"]), ..always };
        assert!(other.holds(None) && other.holds(Some("b")) && !other.holds(Some("a")));
    }
}
