//! Files of a workspace as the API lists them.

use serde::Serialize;

use crate::time::Timestamp;

/// What a directory entry is; symbolic links are shown and never followed.
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
    /// Bytes; only of files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    pub modified_at: Timestamp,
}

/// A directory of the workspace, its entries by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FileListing {
    /// Relative to the workspace; empty for the workspace itself.
    pub path: String,
    pub entries: Vec<FileEntry>,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct WrittenFile {
    /// Relative to the workspace.
    pub path: String,
    /// Bytes.
    pub size: u64,
    pub modified_at: Timestamp,
}

/// What must be so for a file to be written or removed (`If-Match`, `If-None-Match`; RFC 9110, section 13). The default
/// always holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    pub if_match: Option<EntityTags>,
    pub if_none_match: Option<EntityTags>,
}

/// The files that a precondition names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntityTags {
    /// `*`: whichever there is.
    Any,
    /// Those with one of these tags, without their quotes.
    OneOf(Vec<String>),
}

impl EntityTags {
    pub fn contains(&self, tag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(tags) => tags.iter().any(|one| one == tag),
        }
    }
}

impl Precondition {
    /// Whether it holds where the file with the tag `current` is, or, with `None`, none is.
    pub fn holds(&self, current: Option<&str>) -> bool {
        let is_there = |tags: &EntityTags| current.is_some_and(|current| tags.contains(current));
        self.if_match.as_ref().is_none_or(is_there) && !self.if_none_match.as_ref().is_some_and(is_there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precondition_holds_for_what_it_names() {
        let of = |tags: &[&str]| Some(EntityTags::OneOf(tags.iter().map(|tag| (*tag).to_owned()).collect()));
        let (any, always) = (Some(EntityTags::Any), Precondition::default());
        assert!(always.holds(None) && always.holds(Some("a")));
        let exists = Precondition { if_match: any.clone(), ..always.clone() };
        assert!(exists.holds(Some("a")) && !exists.holds(None));
        let same = Precondition { if_match: of(&["a", "b"]), ..always.clone() };
        assert!(same.holds(Some("b")) && !same.holds(Some("c")) && !same.holds(None));
        let is_new = Precondition { if_none_match: any, ..always.clone() };
        assert!(is_new.holds(None) && !is_new.holds(Some("a")));
        let other = Precondition { if_none_match: of(&["a"]), ..always };
        assert!(other.holds(None) && other.holds(Some("b")) && !other.holds(Some("a")));
    }
}
