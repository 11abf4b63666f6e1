//! What can go wrong in the database.

/// A failed read or transaction. Nothing of a failed transaction is kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the SQLite database failed")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the PostgreSQL database failed")]
    Postgres(#[from] sqlx::Error),
    #[error("failed to reach the files of the database")]
    Io(#[from] std::io::Error),
    /// The stored bytes are not what this version writes.
    #[error("a stored row cannot be read: {0}")]
    Corrupt(String),
    /// Another server holds this database.
    #[error("{0}")]
    InUse(String),
    /// The schema is not the one this binary works on.
    #[error("the database has schema version {found}, this binary needs {needed}: run `herm migrate`")]
    SchemaVersion { found: i64, needed: i64 },
    /// The deployment is deleted: nothing can be written under it.
    #[error("the deployment is deleted")]
    DeploymentDeleted,
    /// Another worker holds the work item, or it is gone.
    #[error("the lease on the work item was lost")]
    LeaseLost,
    /// The transaction was sound, but its commit was not: nothing of it is kept.
    #[error("failed to commit: {0}")]
    Commit(String),
    /// The store was closed, or its writer ended.
    #[error("the database is closed")]
    Closed,
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Corrupt(error.to_string())
    }
}
