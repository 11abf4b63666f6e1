//! The store: opening it, and the one way to read and to change what is in it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use herm_types::Clock;
use secrecy::SecretString;
use tokio::sync::oneshot;

use crate::postgres::{self, Postgres};
use crate::sqlite::{Job, Ran, Sqlite};
use crate::tx::Tx;
use crate::{Error, Feed, events, migrate};

/// Where the database is.
#[derive(Clone, Debug)]
pub enum Location {
    /// A directory, made if it is missing.
    Sqlite(PathBuf),
    Postgres(SecretString),
}

/// Who decides over leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseClock {
    /// PostgreSQL's own time; with SQLite, which has none, the machine's.
    Database,
    /// The clock given in the options, for tests that advance it.
    Given,
}

/// How to open a store.
pub struct Options {
    pub location: Location,
    pub clock: Arc<dyn Clock>,
    pub database_clock: DatabaseClock,
    /// Bring the schema up to date; without it an old schema is refused.
    pub migrate: bool,
    /// Refuse a database that a server holds already, and hold it.
    pub exclusive: bool,
}

/// A handle to the database; cheap to clone.
#[derive(Clone)]
pub struct Store {
    engine: Arc<Engine>,
    feed: Feed,
}

enum Engine {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// How often a database that another server holds is tried: one that was killed a moment ago may still be seen, by its
/// database or through a process that it was just starting.
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
    /// [`Error::InUse`] if another server holds it, [`Error::SchemaVersion`] if its schema is not this binary's.
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
        migrate::check(&store, options.migrate).await?;
        Ok(store)
    }

    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Writes what was given so far and closes the database; what comes later is answered with [`Error::Closed`].
    /// SQLite's log is folded into its one file.
    pub async fn close(&self) {
        match &*self.engine {
            Engine::Sqlite(sqlite) => sqlite.close().await,
            Engine::Postgres(postgres) => postgres.close().await,
        }
    }

    /// Runs a named transaction. An error it returns rolls it back, alone; an answer means that it is durable.
    ///
    /// On SQLite the future runs on the writer's thread, so it may await nothing but the transaction.
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
                let mut tx = postgres.begin().await?;
                let result = body(&mut tx).await?;
                events::write_emitted(&mut tx).await?;
                crate::fault::reach("commit.before", name);
                #[cfg(feature = "fault-points")]
                if crate::fault::disk_is_full() {
                    return Err(Error::Commit("the disk is full, says a test".to_owned()).into());
                }
                postgres::commit(tx, name, &self.feed).await?;
                Ok(result)
            }
        }
    }

    /// Runs a named read on one consistent view of the database. Whatever it writes is thrown away.
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
                let mut tx = postgres.begin().await?;
                body(&mut tx).await
            }
        }
    }
}

/// Makes a transaction into a job for SQLite's threads, and the place where its answer arrives.
fn job<T, E, F>(name: &'static str, body: F) -> (Job, oneshot::Receiver<Result<T, E>>)
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
    F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let run = move |tx: &mut Tx| {
        let whole = async {
            let result = body(tx).await?;
            events::write_emitted(tx).await?;
            Ok::<T, E>(result)
        };
        let result = whole.now_or_never().unwrap_or_else(|| {
            Err(Error::Corrupt(format!("transaction {name} awaited something else than the database")).into())
        });
        let keep = result.is_ok();
        let answer = move |committed: Result<(), String>| {
            let result = result.and_then(|value| match committed {
                Ok(()) => Ok(value),
                Err(error) => Err(Error::Commit(error).into()),
            });
            // Who asked may have gone away; what was committed stays.
            let _ = sender.send(result);
        };
        Ran { keep, answer: Box::new(answer) }
    };
    (Job { name, run: Box::new(run) }, receiver)
}
