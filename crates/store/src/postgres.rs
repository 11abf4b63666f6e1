//! PostgreSQL: a connection pool, and a separate connection that holds the server's exclusive lock on the database.

use std::panic::resume_unwind;
use std::sync::Arc;

use herm_types::Clock;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, PgConnection, PgPool};

use crate::tx::{Session, Tx};
use crate::{Error, Feed};

/// The maximum number of connections in a server's pool. When all are in use, transactions wait for a free one.
const MAX_CONNECTIONS: u32 = 16;
/// The statement that tries to acquire the advisory lock, which only one server can hold at a time. The lock's key is
/// the text "herm" in ASCII, read as a number.
const SERVER_LOCK: &str = "SELECT CASE WHEN pg_try_advisory_lock(1751478893) THEN 1 ELSE 0 END";

pub(crate) struct Postgres {
    pool: PgPool,
    clock: Arc<dyn Clock>,
    database_tells_time: bool,
    _server_lock: Option<PgConnection>,
}

impl Postgres {
    /// Connects to the database. With `exclusive`, first acquires the server lock, and fails if another server holds
    /// it.
    pub(crate) async fn open(
        url: &SecretString,
        clock: Arc<dyn Clock>,
        database_tells_time: bool,
        exclusive: bool,
    ) -> Result<Self, Error> {
        let options: PgConnectOptions = url.expose_secret().parse()?;
        let server_lock = if exclusive { Some(claim_server_lock(&options).await?) } else { None };
        let pool = PgPoolOptions::new().max_connections(MAX_CONNECTIONS).connect_with(options).await?;
        Ok(Self { pool, clock, database_tells_time, _server_lock: server_lock })
    }

    pub(crate) async fn begin(&self) -> Result<Tx, Error> {
        let session = match self.pool.begin().await {
            Ok(transaction) => Session::Postgres(transaction),
            Err(sqlx::Error::PoolClosed) => return Err(Error::Closed),
            Err(error) => return Err(error.into()),
        };
        Ok(Tx::new(session, Arc::clone(&self.clock), self.database_tells_time))
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

/// Commits the transaction and publishes its events.
///
/// A separate task does both, so that they complete even if the caller is cancelled. Otherwise, committed events could
/// remain unpublished until the deployment's next event.
pub(crate) async fn commit(tx: Tx, name: &'static str, feed: &Feed) -> Result<(), Error> {
    let feed = feed.clone();
    let committing = tokio::spawn(async move {
        let Tx { session, stored, work_was_added, .. } = tx;
        if let Session::Postgres(transaction) = session
            && let Err(error) = transaction.commit().await
        {
            // The commit may have succeeded although its response was lost. Closing the channels makes the subscribers
            // read the event log, which contains the events if they were committed.
            stored.iter().for_each(|(deployment_id, _)| feed.close_channel(*deployment_id));
            return Err(Error::Commit(error.to_string()));
        }
        crate::failpoint::reach("commit.after", name);
        feed.publish(stored);
        if work_was_added {
            feed.announce_work();
        }
        Ok(())
    });
    committing.await.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => resume_unwind(panic),
        Err(_) => Err(Error::Closed),
    })
}

async fn claim_server_lock(options: &PgConnectOptions) -> Result<PgConnection, Error> {
    let mut connection = options.connect().await?;
    let (claimed,): (i32,) = sqlx::query_as(SERVER_LOCK).fetch_one(&mut connection).await?;
    if claimed == 1 {
        Ok(connection)
    } else {
        Err(Error::InUse(
            "another herm server is using this PostgreSQL database: stop it, or give this server its own database"
                .to_owned(),
        ))
    }
}
