//! The store: opens the database and runs all reads and transactions.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use herm_types::Clock;
use secrecy::SecretString;
use tokio::sync::oneshot;
use tracing::{Instrument as _, Span};

use crate::postgres::{self, Postgres};
use crate::sqlite::{Job, Outcome, Sqlite};
use crate::tx::Tx;
use crate::{Error, Feed, events, migrate};

/// The database to open.
#[derive(Clone, Debug)]
pub enum Location {
    /// The data directory that contains the SQLite database. It is created if it does not exist.
    Sqlite(PathBuf),
    Postgres(SecretString),
}

/// The clock that determines when leases and other time limits expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseClock {
    /// The clock of the PostgreSQL server. SQLite has no clock of its own, so [`Options::clock`] is used there.
    Database,
    /// [`Options::clock`], for tests that advance the time.
    FromOptions,
}

/// Options for [`Store::open`].
pub struct Options {
    pub location: Location,
    pub clock: Arc<dyn Clock>,
    pub database_clock: DatabaseClock,
    /// If true, an older database schema is migrated to the current version. If false, opening such a database fails.
    pub migrate: bool,
    /// If true, acquires the exclusive lock on the database. Opening fails if another server holds the lock.
    pub exclusive: bool,
}

/// A handle to the database. Clones share the same connections.
#[derive(Clone)]
pub struct Store {
    engine: Arc<Engine>,
    feed: Feed,
}

enum Engine {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// The maximum number of attempts to acquire the exclusive lock, one every [`CLAIM_EVERY`]. If all fail, opening the
/// database fails. Retrying helps because the lock of a server that was just killed may persist for a moment: its
/// connection is not closed yet, or a child process has inherited the lock file.
const CLAIM_ATTEMPTS: u32 = 20;
const CLAIM_EVERY: Duration = Duration::from_millis(100);

impl Engine {
    async fn open(options: &Options, feed: &Feed) -> Result<Self, Error> {
        match &options.location {
            Location::Sqlite(dir) => {
                Ok(Self::Sqlite(Sqlite::open(dir, options.exclusive, &options.clock, feed)?))
            }
            Location::Postgres(url) => {
                let tells_time = options.database_clock == DatabaseClock::Database;
                let clock = Arc::clone(&options.clock);
                Ok(Self::Postgres(Postgres::open(url, clock, tells_time, options.exclusive).await?))
            }
        }
    }
}

impl Store {
    /// Opens the database.
    ///
    /// # Errors
    /// Returns [`Error::InUse`] if another server holds the exclusive lock. Returns [`Error::SchemaVersion`] if the
    /// database does not have the schema version that this binary needs and was not migrated.
    pub async fn open(options: Options) -> Result<Self, Error> {
        let feed = Feed::default();
        let mut attempts_left = CLAIM_ATTEMPTS;
        let engine = loop {
            attempts_left -= 1;
            match Engine::open(&options, &feed).await {
                Err(Error::InUse(_)) if attempts_left > 0 => tokio::time::sleep(CLAIM_EVERY).await,
                opened => break opened?,
            }
        };
        let store = Self { engine: Arc::new(engine), feed };
        store.transaction("migrate", move |tx| Box::pin(migrate::check(tx, options.migrate))).await?;
        Ok(store)
    }

    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Completes all earlier transactions and closes the database. Later transactions fail with [`Error::Closed`]. On
    /// SQLite, copies the write-ahead log into the database file.
    pub async fn close(&self) {
        match &*self.engine {
            Engine::Sqlite(sqlite) => sqlite.close().await,
            Engine::Postgres(postgres) => postgres.close().await,
        }
    }

    /// Runs `body` in a transaction. `name` identifies the transaction in logs and in tests that inject failures. If
    /// `body` returns an error, the transaction is rolled back. If this function returns `Ok`, the changes are
    /// committed and durable.
    ///
    /// On SQLite, `body` runs on the writer thread and must not await anything other than methods of [`Tx`] and
    /// functions that use it.
    pub async fn transaction<T, E, F>(&self, name: &'static str, body: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
    {
        match &*self.engine {
            Engine::Sqlite(sqlite) => {
                let (job, answer) = job(name, body);
                sqlite.write(job).await?;
                answer.await.unwrap_or_else(|_| Err(Error::Closed.into()))
            }
            Engine::Postgres(postgres) => {
                let transaction = async {
                    let mut tx = postgres.begin().await?;
                    let result = body(&mut tx).await?;
                    events::write_emitted(&mut tx).await?;
                    crate::failpoint::reach("commit.before", name);
                    #[cfg(feature = "failpoints")]
                    if crate::failpoint::disk_is_full() {
                        return Err(Error::Commit("the disk is full (injected by a test)".to_owned()).into());
                    }
                    postgres::commit(tx, name, &self.feed).await?;
                    Ok(result)
                };
                transaction.instrument(transaction_span(name)).await
            }
        }
    }

    /// Runs `body` in a read transaction. On SQLite, all its statements see the same state of the database. Any writes
    /// made by `body` are rolled back.
    pub async fn read<T, E, F>(&self, name: &'static str, body: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
    {
        match &*self.engine {
            Engine::Sqlite(sqlite) => {
                let (job, answer) = job(name, body);
                sqlite.read(job).await?;
                answer.await.unwrap_or_else(|_| Err(Error::Closed.into()))
            }
            Engine::Postgres(postgres) => {
                let read = async {
                    let mut tx = postgres.begin().await?;
                    body(&mut tx).await
                };
                read.instrument(transaction_span(name)).await
            }
        }
    }
}

/// Returns the span of a transaction, within the caller's span.
fn transaction_span(name: &'static str) -> Span {
    let span = tracing::debug_span!("transaction", name);
    if span.is_disabled() { Span::current() } else { span }
}

/// Converts the body of a transaction into a job for the SQLite threads. Also returns the channel that receives the
/// result.
fn job<T, E, F>(name: &'static str, body: F) -> (Job, oneshot::Receiver<Result<T, E>>)
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
    F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let span = transaction_span(name);
    let run = move |tx: &mut Tx| {
        let _entered = span.enter();
        let whole = async {
            let result = body(tx).await?;
            events::write_emitted(tx).await?;
            Ok::<T, E>(result)
        };
        let result = whole.now_or_never().unwrap_or_else(|| {
            Err(Error::Corrupt(format!("transaction {name} awaited something other than the database"))
                .into())
        });
        let keep = result.is_ok();
        let answer = move |committed: Result<(), String>| {
            let result = result.and_then(|value| match committed {
                Ok(()) => Ok(value),
                Err(error) => Err(Error::Commit(error).into()),
            });
            // Sending fails if the caller was cancelled. The transaction remains committed.
            let _ = sender.send(result);
        };
        Outcome { keep, on_commit: Box::new(answer) }
    };
    (Job { name, run: Box::new(run) }, receiver)
}
