//! Errors of the database.

/// A failed read or transaction. After [`Error::Commit`] or [`Error::Closed`], a transaction may have been committed
/// all the same. After any other error, it has changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to access the SQLite database")]
    Sqlite(#[from] rusqlite::Error),
    #[error("failed to access the PostgreSQL database")]
    Postgres(#[from] sqlx::Error),
    #[error("failed to access the database")]
    Io(#[from] std::io::Error),
    /// A stored value does not have the expected format, or an invariant of the database is violated.
    #[error("the database contains unexpected data: {0}")]
    Corrupt(String),
    /// Another server holds the exclusive lock on this database.
    #[error("{0}")]
    InUse(String),
    /// The schema version of the database differs from the one that this binary needs.
    #[error(
        "the database has schema version {found}, but this binary needs {needed}: run `herm migrate` if the \
         database is older, or a newer herm if the database is newer"
    )]
    SchemaVersion { found: i64, needed: i64 },
    /// The deployment has been deleted, so nothing more can be written for it.
    #[error("the deployment has been deleted")]
    DeploymentDeleted,
    /// Another worker has claimed the work item, or the work item was removed.
    #[error("the lease on the work item was lost")]
    LeaseLost,
    /// The statements succeeded, but the commit returned an error. On PostgreSQL, the transaction may have been
    /// committed all the same, because the connection may break before the database's reply arrives.
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
