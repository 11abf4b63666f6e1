//! Looking at a database without changing it, for who only wants to know what is there.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use crate::sqlite::FILE;
use crate::{Error, Location};

/// How long a database may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The schema's version; `None` where no server or `herm migrate` has made one yet. Nothing is made or changed.
///
/// # Errors
/// The database is not reachable, or is none.
pub async fn schema_version(location: &Location) -> Result<Option<i64>, Error> {
    ask(location, Question { table: "schema_version", query: "SELECT MAX(version) FROM schema_version" })
        .await
}

/// Whether anything in it is sealed with a master key, which must be there then. Nothing is made or changed.
///
/// # Errors
/// As of [`schema_version`].
pub async fn is_sealed(location: &Location) -> Result<bool, Error> {
    let rows = Question { table: "master_key_check", query: "SELECT COUNT(*) FROM master_key_check" };
    Ok(ask(location, rows).await?.is_some_and(|count| count > 0))
}

/// A query for one number, and the table that it reads.
#[derive(Clone, Copy)]
struct Question {
    table: &'static str,
    query: &'static str,
}

/// The answer; `None` if there is no such table, or nothing in it.
async fn ask(location: &Location, question: Question) -> Result<Option<i64>, Error> {
    match location {
        Location::Sqlite(dir) => {
            let file = dir.join(FILE);
            let read = tokio::task::spawn_blocking(move || ask_file(&file, question));
            read.await.map_err(std::io::Error::other)?
        }
        Location::Postgres(url) => {
            tokio::time::timeout(ANSWER_LIMIT, ask_server(url, question)).await.map_err(|_| {
                let message = format!("no answer within {} s", ANSWER_LIMIT.as_secs());
                std::io::Error::new(std::io::ErrorKind::TimedOut, message)
            })?
        }
    }
}

fn ask_file(file: &Path, question: Question) -> Result<Option<i64>, Error> {
    if !file.try_exists()? {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(ANSWER_LIMIT)?;
    let table = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = $1";
    if connection.query_row(table, [question.table], |_| Ok(())).optional()?.is_none() {
        return Ok(None);
    }
    Ok(connection.query_row(question.query, [], |row| row.get(0))?)
}

async fn ask_server(url: &SecretString, question: Question) -> Result<Option<i64>, Error> {
    let options: PgConnectOptions = url.expose_secret().parse()?;
    let mut connection = options.connect().await?;
    let table = "SELECT CASE WHEN to_regclass($1) IS NULL THEN 0 ELSE 1 END";
    let (has_table,): (i32,) = sqlx::query_as(table).bind(question.table).fetch_one(&mut connection).await?;
    let answer = if has_table == 1 {
        sqlx::query_as::<_, (Option<i64>,)>(question.query).fetch_one(&mut connection).await?.0
    } else {
        None
    };
    connection.close().await?;
    Ok(answer)
}
