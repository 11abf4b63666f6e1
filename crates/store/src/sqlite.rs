//! SQLite: one writer thread and a few reader threads.
//!
//! The writer takes all waiting transactions and runs them in one `BEGIN IMMEDIATE … COMMIT`, each under its own
//! savepoint. A transaction that fails is rolled back alone. The callers receive their results after the commit, which
//! needs a single fsync.

use std::fs::{self, File, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

use herm_types::Clock;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

use crate::tx::{Session, Tx};
use crate::{Error, Feed};

/// The maximum number of transactions in one group commit. It limits how long the first transaction waits for its
/// result.
const MAX_GROUP: usize = 256;
/// The capacity of the writer's queue and of the readers' queue, in transactions. When a queue is full, callers wait
/// until there is room.
const MAX_WAITING: usize = 4096;
/// The number of reader threads, which is also the maximum number of concurrent reads.
const READERS: usize = 2;
/// The name of the database file in the data directory.
pub(crate) const FILE: &str = "herm.sqlite3";
/// The maximum number of prepared statements in the cache of each connection. Beyond it, the least recently used
/// statement is discarded.
const STATEMENT_CACHE: usize = 256;

/// The outcome of running a transaction's body. `keep` is false if the transaction must be rolled back. `on_commit` is
/// called with the result of the commit and sends the transaction's result to its caller.
pub(crate) struct Outcome {
    pub(crate) keep: bool,
    pub(crate) on_commit: Box<dyn FnOnce(Result<(), String>) + Send>,
}

pub(crate) struct Job {
    pub(crate) name: &'static str,
    pub(crate) run: Box<dyn FnOnce(&mut Tx) -> Outcome + Send>,
}

/// A request to the writer thread.
enum Request {
    Write(Job),
    /// Complete all earlier transactions and then end the writer thread.
    Close(oneshot::Sender<()>),
}

pub(crate) struct Sqlite {
    writer: Sender<Request>,
    readers: Sender<Job>,
    _lock: Option<File>,
}

impl Sqlite {
    /// Opens the database in the directory `dir`. With `exclusive`, locks the directory until the returned value is
    /// dropped.
    pub(crate) fn open(
        dir: &Path,
        exclusive: bool,
        clock: &Arc<dyn Clock>,
        feed: &Feed,
    ) -> Result<Self, Error> {
        fs::create_dir_all(dir)?;
        let lock = if exclusive { Some(lock(dir)?) } else { None };
        let file = dir.join(FILE);
        let write = connect(&file)?;
        write.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
        let (writer, mut requests) = channel(MAX_WAITING);
        let (write_clock, feed) = (Arc::clone(clock), feed.clone());
        std::thread::Builder::new()
            .name("herm-sqlite-writer".to_owned())
            .spawn(move || run_writer(write, &mut requests, &write_clock, &feed))?;
        let (readers, jobs) = channel(MAX_WAITING);
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 0..READERS {
            let (read, jobs, clock) = (connect(&file)?, Arc::clone(&jobs), Arc::clone(clock));
            std::thread::Builder::new()
                .name(format!("herm-sqlite-reader-{number}"))
                .spawn(move || run_reader(read, &jobs, &clock))?;
        }
        Ok(Self { writer, readers, _lock: lock })
    }

    pub(crate) async fn write(&self, job: Job) -> Result<(), Error> {
        self.writer.send(Request::Write(job)).await.map_err(|_| Error::Closed)
    }

    /// Ends the writer thread after all earlier transactions, and copies the write-ahead log into the database file.
    pub(crate) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        // Sending fails if the writer thread has already ended. Then there is nothing left to close.
        if self.writer.send(Request::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
    }

    pub(crate) async fn read(&self, job: Job) -> Result<(), Error> {
        self.readers.send(job).await.map_err(|_| Error::Closed)
    }
}

fn lock(dir: &Path) -> Result<File, Error> {
    let path: PathBuf = dir.join("herm.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse(format!(
            "another herm server is using the data directory {}: stop it, or give this server its own --data-dir",
            dir.display()
        ))),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

fn connect(file: &Path) -> Result<Connection, Error> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    Ok(connection)
}

fn run_writer(connection: Connection, requests: &mut Receiver<Request>, clock: &Arc<dyn Clock>, feed: &Feed) {
    let mut tx = Tx::new(Session::Sqlite(connection), Arc::clone(clock), false);
    while let Some(first) = requests.blocking_recv() {
        let mut closing = None;
        let waiting = std::iter::once(first).chain(std::iter::from_fn(|| requests.try_recv().ok()));
        let group = waiting.map_while(|order| match order {
            Request::Write(job) => Some(job),
            Request::Close(done) => {
                closing = Some(done);
                None
            }
        });
        write_group(&mut tx, group.take(MAX_GROUP), feed);
        if let Some(done) = closing {
            if let Err(error) = statement(&tx, "PRAGMA wal_checkpoint(TRUNCATE)") {
                tracing::warn!(%error, "failed to checkpoint the SQLite write-ahead log; the server retries at its next start");
            }
            // Sending fails if the caller of `close` was cancelled, which does not matter.
            let _ = done.send(());
            return;
        }
    }
}

fn write_group(tx: &mut Tx, group: impl Iterator<Item = Job>, feed: &Feed) {
    #[cfg(feature = "failpoints")]
    limit_size(tx);
    let mut broken = statement(tx, "BEGIN IMMEDIATE").err().map(|error| format!("BEGIN failed: {error}"));
    let mut names = Vec::new();
    let mut answers = Vec::new();
    for job in group {
        let name = job.name;
        if let Some(error) = &broken {
            tracing::error!(
                transaction = name,
                error,
                "skipped a transaction because an earlier one in the same group commit failed; the caller receives an error"
            );
            continue;
        }
        match run_under_savepoint(tx, job) {
            Ok(answer) => {
                crate::failpoint::reach("commit.before", name);
                names.push(name);
                answers.extend(answer);
            }
            Err(error) => broken = Some(format!("failed to set or end the savepoint of {name}: {error}")),
        }
    }
    let committed = match broken {
        None => statement(tx, "COMMIT").map_err(|error| error.to_string()),
        Some(error) => Err(error),
    };
    let (events, work) = (std::mem::take(&mut tx.stored), std::mem::take(&mut tx.work_was_added));
    match &committed {
        Ok(()) => {
            for name in names {
                crate::failpoint::reach("commit.after", name);
            }
            feed.publish(events);
            if work {
                feed.announce_work();
            }
        }
        Err(error) => {
            tracing::error!(
                error,
                transactions = ?names,
                "a group commit failed; rolled back all its transactions"
            );
            // After a failed COMMIT, SQLite may leave the transaction open. If it is not open, ROLLBACK fails without
            // any effect.
            let _ = statement(tx, "ROLLBACK");
        }
    }
    for answer in answers {
        answer(committed.clone());
    }
}

/// Stops the database file from growing while a test simulates a full disk. The next statement that needs a new page
/// then fails with SQLite's own error for a full disk.
#[cfg(feature = "failpoints")]
fn limit_size(tx: &Tx) {
    // SQLite never sets the limit below the current size, so a limit of 1 page means the current size.
    let pages = if crate::failpoint::disk_is_full() { 1 } else { i64::from(u32::MAX - 1) };
    let limited = statement(tx, &format!("PRAGMA max_page_count = {pages}"));
    if let Err(error) = limited {
        tracing::error!(%error, "failed to set the maximum size of the SQLite database");
    }
}

type CommitCallback = Box<dyn FnOnce(Result<(), String>) + Send>;

/// Runs one transaction under a savepoint. If the transaction panics, rolls it back and returns `None`, and its caller
/// receives an error.
///
/// Returns an error if setting or releasing the savepoint failed. The state of the transaction is then unknown, so the
/// whole group must be rolled back.
fn run_under_savepoint(tx: &mut Tx, job: Job) -> rusqlite::Result<Option<CommitCallback>> {
    let name = job.name;
    let (stored_before, work_before) = (tx.stored.len(), tx.work_was_added);
    tx.emitted.clear();
    statement(tx, "SAVEPOINT one")?;
    let ran = catch_unwind(AssertUnwindSafe(|| (job.run)(tx)));
    let keep = matches!(&ran, Ok(Outcome { keep: true, .. }));
    if !keep {
        tx.stored.truncate(stored_before);
        tx.work_was_added = work_before;
    }
    statement(tx, if keep { "RELEASE one" } else { "ROLLBACK TO one; RELEASE one" })?;
    if ran.is_err() {
        tracing::error!(transaction = name, "a transaction panicked and was rolled back");
    }
    Ok(ran.ok().map(|ran| ran.on_commit))
}

fn run_reader(connection: Connection, jobs: &Mutex<Receiver<Job>>, clock: &Arc<dyn Clock>) {
    let mut tx = Tx::new(Session::Sqlite(connection), Arc::clone(clock), false);
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(job) = job else { return };
        let name = job.name;
        if let Err(error) = statement(&tx, "BEGIN") {
            tracing::error!(read = name, %error, "failed to begin a read transaction");
            continue;
        }
        let ran = catch_unwind(AssertUnwindSafe(|| (job.run)(&mut tx)));
        tx.emitted.clear();
        tx.stored.clear();
        let ended = statement(&tx, "ROLLBACK").map_err(|error| error.to_string());
        if let Ok(ran) = ran {
            (ran.on_commit)(ended);
        }
    }
}

fn statement(tx: &Tx, sql: &str) -> rusqlite::Result<()> {
    match &tx.session {
        Session::Sqlite(connection) => connection.execute_batch(sql),
        Session::Postgres(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SQLite 3.51.1 can deadlock if one connection locks the database while another one is closed.
    #[test]
    fn connections_are_opened_and_closed_at_the_same_time() {
        const ROUNDS: usize = 200;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        connect(&file).unwrap().execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (a);").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        let rows = "SELECT COUNT(*) FROM t";
                        let count = connect(&file).unwrap().query_row(rows, [], |row| row.get::<_, i64>(0));
                        assert_eq!(count.unwrap(), 0);
                    }
                });
            }
        });
    }
}
