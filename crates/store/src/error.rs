//! Errors of the database.

/// A failed read or transaction. A failed transaction leaves no change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the SQLite database failed")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the PostgreSQL database failed")]
    Postgres(#[from] sqlx::Error),
    #[error("failed to access the files of the database")]
    Io(#[from] std::io::Error),
    /// A stored value does not have the expected format, or an invariant of the database is violated.
    #[error("a stored row cannot be read: {0}")]
    Corrupt(String),
    /// Another server holds the exclusive lock on this database.
    #[error("{0}")]
    InUse(String),
    /// The schema version of the database differs from the one that this binary needs.
    #[error("the database has schema version {found}, but this binary needs {needed}: run `herm migrate`")]
    SchemaVersion { found: i64, needed: i64 },
    /// The deployment is deleted, so nothing more can be written for it.
    #[error("the deployment is deleted")]
    DeploymentDeleted,
    /// Another worker has claimed the work item, or the work item was removed.
    #[error("the lease on the work item was lost")]
    LeaseLost,
    /// The statements succeeded but the commit failed.
    #[error("failed to commit the transaction: {0}")]
    Commit(String),
    /// The store was closed, or its writer thread ended.
    #[error("the database is closed")]
    Closed,
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Corrupt(error.to_string())
    }
}
