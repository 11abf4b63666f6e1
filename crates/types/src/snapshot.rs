//! Snapshots: what was in the workspace of a deployment that was deleted.

use serde::{Deserialize, Serialize};

use crate::id::{AccountId, DeploymentId, SnapshotId};
use crate::time::Timestamp;

/// How long a snapshot is kept from the deletion on, in milliseconds: 30 days.
pub const KEPT_MS: i64 = 30 * 24 * 60 * 60 * 1000;

/// Whether a snapshot can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotStatus {
    /// The deployment's sandbox ends, and its files are gathered.
    Creating,
    Ready,
    /// It could not be made, and the files are where they were. It may become ready yet.
    Error,
}

impl SnapshotStatus {
    pub const ALL: [Self; 3] = [Self::Creating, Self::Ready, Self::Error];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Error => "error",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// Why a snapshot could not be made: a stable code and a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SnapshotError {
    pub code: String,
    pub message: String,
}

/// What a snapshot that is ready holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SnapshotContents {
    /// Bytes of the archive.
    pub size: u64,
    /// Bytes of all files in it.
    pub content_size: u64,
    /// Files, directories and links.
    pub entries: u64,
    /// Sockets, FIFOs, devices and what lay too deep: they are not in it, and its manifest names them.
    pub left_out: u64,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Snapshot {
    pub snapshot_id: SnapshotId,
    #[serde(skip)]
    pub account_id: AccountId,
    /// The deployment whose files it holds.
    pub deployment_id: DeploymentId,
    pub customer_id: String,
    pub status: SnapshotStatus,
    /// `null` until it is ready.
    #[schema(inline)]
    pub contents: Option<SnapshotContents>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<SnapshotError>,
    pub created_at: Timestamp,
    /// When it is erased.
    pub expires_at: Timestamp,
}
