//! SQLite: one thread that writes, a few that read.
//!
//! The writer gathers the transactions that wait, runs each under a savepoint in one `BEGIN IMMEDIATE …
//! COMMIT`, and answers them all after the one fsync. A transaction that fails is rolled back alone.

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

/// Transactions that share one commit at most: it bounds how long the first of them waits.
const MAX_GROUP: usize = 256;
/// Transactions that may wait for the writer; who comes later waits to be let in.
const MAX_WAITING: usize = 4096;
/// Threads that read.
const READERS: usize = 2;
/// The database's name in its directory.
pub(crate) const FILE: &str = "herm.sqlite3";
/// Prepared statements each connection keeps.
const STATEMENT_CACHE: usize = 256;

/// What is left of a transaction once it ran: whether to keep it, and whom to tell how the commit went.
pub(crate) struct Ran {
    pub(crate) keep: bool,
    pub(crate) answer: Box<dyn FnOnce(Result<(), String>) + Send>,
}

pub(crate) struct Job {
    pub(crate) name: &'static str,
    pub(crate) run: Box<dyn FnOnce(&mut Tx) -> Ran + Send>,
}

/// What the writer is asked to do.
enum Order {
    Write(Job),
    /// Write what came before, and end.
    Close(oneshot::Sender<()>),
}

pub(crate) struct Sqlite {
    writer: Sender<Order>,
    readers: Sender<Job>,
    _lock: Option<File>,
}

impl Sqlite {
    /// Opens the database in `dir`; with `exclusive` it holds the directory's lock for as long as it lives.
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
        let (writer, mut orders) = channel(MAX_WAITING);
        let (write_clock, feed) = (Arc::clone(clock), feed.clone());
        std::thread::Builder::new()
            .name("herm-sqlite-writer".to_owned())
            .spawn(move || run_writer(write, &mut orders, &write_clock, &feed))?;
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
        self.writer.send(Order::Write(job)).await.map_err(|_| Error::Closed)
    }

    /// Ends the writer once it has written what it was given, and folds the log into the database.
    pub(crate) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        // One that has ended already has nothing left to close.
        if self.writer.send(Order::Close(done)).await.is_ok() {
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
            "another herm server is using the data directory {}: stop it, or give this one its own --data-dir",
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

fn run_writer(connection: Connection, orders: &mut Receiver<Order>, clock: &Arc<dyn Clock>, feed: &Feed) {
    let mut tx = Tx::new(Session::Sqlite(connection), Arc::clone(clock), false);
    while let Some(first) = orders.blocking_recv() {
        let mut closing = None;
        let waiting = std::iter::once(first).chain(std::iter::from_fn(|| orders.try_recv().ok()));
        let group = waiting.map_while(|order| match order {
            Order::Write(job) => Some(job),
            Order::Close(done) => {
                closing = Some(done);
                None
            }
        });
        write_group(&mut tx, group.take(MAX_GROUP), feed);
        if let Some(done) = closing {
            if let Err(error) = statement(&tx, "PRAGMA wal_checkpoint(TRUNCATE)") {
                tracing::warn!(%error, "the database's log stays beside it until the next start");
            }
            // Who asked may have gone away.
            let _ = done.send(());
            return;
        }
    }
}

fn write_group(tx: &mut Tx, group: impl Iterator<Item = Job>, feed: &Feed) {
    #[cfg(feature = "fault-points")]
    limit_size(tx);
    let mut broken = statement(tx, "BEGIN IMMEDIATE").err().map(|error| format!("failed to begin: {error}"));
    let mut names = Vec::new();
    let mut answers = Vec::new();
    for job in group {
        let name = job.name;
        if let Some(error) = &broken {
            tracing::error!(transaction = name, error, "a transaction was not tried");
            continue;
        }
        match run_under_savepoint(tx, job) {
            Ok(answer) => {
                crate::fault::reach("commit.before", name);
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
                crate::fault::reach("commit.after", name);
            }
            feed.publish(events);
            if work {
                feed.announce_work();
            }
        }
        Err(error) => {
            tracing::error!(error, "nothing of a group of transactions is kept");
            // A COMMIT that failed may leave the transaction open; one that ended it makes this a no-op.
            let _ = statement(tx, "ROLLBACK");
        }
    }
    for answer in answers {
        answer(committed.clone());
    }
}

/// Lets the database grow no further while a test fills the disk: the real error at whichever statement needs a page.
#[cfg(feature = "fault-points")]
fn limit_size(tx: &Tx) {
    // SQLite raises a limit below the present size to that size.
    let pages = if crate::fault::disk_is_full() { 1 } else { i64::from(u32::MAX - 1) };
    let limited = statement(tx, &format!("PRAGMA max_page_count = {pages}"));
    if let Err(error) = limited {
        tracing::error!(%error, "failed to limit the database's size");
    }
}

type Answer = Box<dyn FnOnce(Result<(), String>) + Send>;

/// Runs one transaction; one that panicked is rolled back, and who asked finds its answer dropped. Where even the
/// savepoint fails, nobody knows what a commit would keep: then the whole group must not be committed.
fn run_under_savepoint(tx: &mut Tx, job: Job) -> rusqlite::Result<Option<Answer>> {
    let name = job.name;
    let (stored_before, work_before) = (tx.stored.len(), tx.work_was_added);
    tx.emitted.clear();
    statement(tx, "SAVEPOINT one")?;
    let ran = catch_unwind(AssertUnwindSafe(|| (job.run)(tx)));
    let keep = matches!(&ran, Ok(Ran { keep: true, .. }));
    if !keep {
        tx.stored.truncate(stored_before);
        tx.work_was_added = work_before;
    }
    statement(tx, if keep { "RELEASE one" } else { "ROLLBACK TO one; RELEASE one" })?;
    if ran.is_err() {
        tracing::error!(transaction = name, "a transaction panicked and was rolled back");
    }
    Ok(ran.ok().map(|ran| ran.answer))
}

fn run_reader(connection: Connection, jobs: &Mutex<Receiver<Job>>, clock: &Arc<dyn Clock>) {
    let mut tx = Tx::new(Session::Sqlite(connection), Arc::clone(clock), false);
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(job) = job else { return };
        let name = job.name;
        if let Err(error) = statement(&tx, "BEGIN") {
            tracing::error!(read = name, %error, "failed to begin a read");
            continue;
        }
        let ran = catch_unwind(AssertUnwindSafe(|| (job.run)(&mut tx)));
        tx.emitted.clear();
        tx.stored.clear();
        let ended = statement(&tx, "ROLLBACK").map_err(|error| error.to_string());
        if let Ok(ran) = ran {
            (ran.answer)(ended);
        }
    }
}

fn statement(tx: &Tx, sql: &str) -> rusqlite::Result<()> {
    match &tx.session {
        Session::Sqlite(connection) => connection.execute_batch(sql),
        Session::Postgres(_) => Ok(()),
    }
}
