//! PostgreSQL: a pool of connections, and one that holds the server's claim on the database.

use std::panic::resume_unwind;
use std::sync::Arc;

use herm_types::Clock;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, PgConnection, PgPool};

use crate::tx::{Session, Tx};
use crate::{Error, Feed};

/// Connections a server keeps open at most.
const MAX_CONNECTIONS: u32 = 16;
/// The advisory lock that one server at a time holds: "herm" in ASCII.
const SERVER_LOCK: &str = "SELECT CASE WHEN pg_try_advisory_lock(1751478893) THEN 1 ELSE 0 END";

pub(crate) struct Postgres {
    pool: PgPool,
    clock: Arc<dyn Clock>,
    database_tells_time: bool,
    _server_lock: Option<PgConnection>,
}

impl Postgres {
    /// Connects. With `exclusive` it refuses a database that another server holds.
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

/// Commits, and tells what was committed. It does both to the end also where who asked has gone away: a subscriber that
/// is not told of the last event waits for the next one.
pub(crate) async fn commit(tx: Tx, name: &'static str, feed: &Feed) -> Result<(), Error> {
    let feed = feed.clone();
    let committing = tokio::spawn(async move {
        let Tx { session, stored, work_was_added, .. } = tx;
        if let Session::Postgres(transaction) = session
            && let Err(error) = transaction.commit().await
        {
            // It may be committed all the same, if only the answer was lost.
            stored.iter().for_each(|(deployment_id, _)| feed.doubt(*deployment_id));
            return Err(Error::Commit(error.to_string()));
        }
        crate::fault::reach("commit.after", name);
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
            "another herm server is using this PostgreSQL database: stop it, or give this one its own"
                .to_owned(),
        ))
    }
}
