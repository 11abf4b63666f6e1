//! Why a use case did not happen, and what the client is told of it: the one place where that is decided.

use herm_types::ErrorCode;

/// A use case that did not happen. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller is told this.
    #[error(transparent)]
    Refused(#[from] herm_types::Error),
    /// A fault of ours, or of the database; the caller is told only that.
    #[error("the database failed")]
    Store(#[from] herm_store::Error),
    /// What is stored encrypted could not be written or read.
    #[error("failed to seal or open a stored value")]
    Seal(#[from] herm_crypto::SealError),
    /// An answer could not be written as JSON.
    #[error("failed to write an answer")]
    Answer(#[from] serde_json::Error),
    /// A file is over its limit, or finds no room.
    #[error("{0}")]
    TooLarge(String),
    /// A workspace could not be reached.
    #[error("the workspace could not be reached")]
    Workspace(#[source] herm_sandbox::workspace::Error),
    /// A snapshot's file could not be reached.
    #[error("the snapshot's file could not be reached")]
    Snapshot(#[source] std::io::Error),
}

impl Error {
    /// What the client is told. What it is not told is logged here, once.
    pub fn into_response(self) -> herm_types::Error {
        match self {
            Self::Refused(error) => error,
            Self::Store(herm_store::Error::DeploymentDeleted) => {
                herm_types::Error::new(ErrorCode::NotFound, "The deployment is deleted.")
            }
            Self::Store(error @ (herm_store::Error::Closed | herm_store::Error::Commit(_))) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the database is away");
                herm_types::Error::new(ErrorCode::Unavailable, "The database is away; try again in a moment.")
            }
            error @ (Self::Store(_) | Self::Seal(_) | Self::Answer(_) | Self::Snapshot(_)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the server failed");
                herm_types::Error::new(ErrorCode::ServerError, "The server failed; the fault is in its log.")
            }
            Self::TooLarge(message) => herm_types::Error::new(ErrorCode::ValidationError, message),
            Self::Workspace(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a workspace could not be reached");
                herm_types::Error::new(ErrorCode::ServerError, "The workspace could not be reached.")
            }
        }
    }
}
