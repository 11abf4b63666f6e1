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
