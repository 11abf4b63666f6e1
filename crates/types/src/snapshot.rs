//! Snapshots: compressed copies of the workspaces of deleted deployments.

use serde::{Deserialize, Serialize};

use crate::id::{AccountId, DeploymentId, SnapshotId};
use crate::time::Timestamp;

/// The time for which a snapshot is retained after the deletion of the deployment: 30 days, in milliseconds.
pub const RETENTION_MS: i64 = 30 * 24 * 60 * 60 * 1000;

/// The status of a snapshot. Only `ready` snapshots can be downloaded or restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotStatus {
    /// The server is stopping the deployment's sandbox or archiving the files of the workspace.
    Creating,
    /// The archive is complete.
    Ready,
    /// Archiving failed. The server retains the files of the workspace and tries to archive them again.
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

/// The error with which archiving failed: a stable code and a human-readable explanation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SnapshotError {
    pub code: String,
    pub message: String,
}

/// The size of a snapshot's archive, and the number of entries in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SnapshotContents {
    /// The size of the compressed archive, in bytes.
    pub size: u64,
    /// The total size of all files in the archive before compression, in bytes.
    pub content_size: u64,
    /// The number of files, directories and symbolic links in the archive.
    pub entries: u64,
    /// The number of workspace entries that were not archived: sockets, FIFOs, devices, mount points, entries
    /// whose path is too long or too deep, and symbolic links whose target is too long. The archive's
    /// last file, the manifest, lists the first 1,000 of them and the number of the others.
    pub left_out: u64,
}

/// A copy of the workspace of a deleted deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Snapshot {
    pub snapshot_id: SnapshotId,
    #[serde(skip)]
    pub account_id: AccountId,
    /// The deleted deployment whose files the snapshot contains.
    pub deployment_id: DeploymentId,
    pub customer_id: String,
    pub status: SnapshotStatus,
    /// The size of the archive and the number of its entries, or `null` until the status is `ready`.
    #[schema(inline)]
    pub contents: Option<SnapshotContents>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<SnapshotError>,
    pub created_at: Timestamp,
    /// The time at which the server deletes the snapshot.
    pub expires_at: Timestamp,
}
