//! Errors of use cases, and their mapping to API errors. This is the only place that maps them.

use herm_types::ErrorCode;

/// The error of a use case. The transaction of the use case has been rolled back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request was rejected. The client receives this error.
    #[error(transparent)]
    Rejected(#[from] herm_types::Error),
    /// The database failed. The client receives only a generic error.
    #[error("a database operation failed")]
    Store(#[from] herm_store::Error),
    /// A value could not be encrypted, or a stored value could not be decrypted.
    #[error("failed to encrypt or decrypt a stored value")]
    Seal(#[from] herm_crypto::SealError),
    /// A response could not be serialized.
    #[error("failed to serialize a response")]
    Response(#[from] serde_json::Error),
    /// A file exceeds its size limit, or the workspace has no space for it.
    #[error("{0}")]
    TooLarge(String),
    /// An I/O error in a workspace.
    #[error("failed to access the workspace")]
    Workspace(#[source] herm_sandbox::workspace::Error),
    /// An I/O error on a snapshot's archive.
    #[error("failed to access the snapshot's archive")]
    Snapshot(#[source] std::io::Error),
}

impl Error {
    /// Returns the error that the client receives. Internal errors are logged here and replaced by a generic
    /// message.
    pub fn into_response(self) -> herm_types::Error {
        match self {
            Self::Rejected(error) => error,
            Self::Store(herm_store::Error::DeploymentDeleted) => {
                herm_types::Error::new(ErrorCode::NotFound, "The deployment has been deleted.")
            }
            Self::Store(error @ (herm_store::Error::Closed | herm_store::Error::Commit(_))) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the database is unavailable");
                herm_types::Error::new(
                    ErrorCode::Unavailable,
                    "The database is unavailable; try again later.",
                )
            }
            error @ (Self::Store(_) | Self::Seal(_) | Self::Response(_) | Self::Snapshot(_)) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a request failed with an internal error"
                );
                herm_types::Error::new(ErrorCode::ServerError, "Internal error.")
            }
            Self::TooLarge(message) => herm_types::Error::new(ErrorCode::ValidationError, message),
            Self::Workspace(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "failed to access a workspace");
                let message = "Internal error: the workspace could not be read or written.";
                herm_types::Error::new(ErrorCode::ServerError, message)
            }
        }
    }
}
