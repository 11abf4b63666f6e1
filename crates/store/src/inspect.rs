//! Reads the state of a database for `herm doctor`, without changing the database.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use crate::sqlite::FILE;
use crate::{Error, Location};

/// The maximum time to wait for an answer from the database. After that, the query fails.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Returns the version of the database schema, or `None` if there is no schema yet. Does not change the database,
/// whereas a server would create a missing schema at startup.
///
/// # Errors
/// Fails if the database cannot be reached or the file is not a database.
pub async fn schema_version(location: &Location) -> Result<Option<i64>, Error> {
    run(location, Query { table: "schema_version", sql: "SELECT MAX(version) FROM schema_version" }).await
}

/// Returns true if a server with a master key has used this database before. From then on, every server that uses the
/// database needs the same master key.
///
/// # Errors
/// Fails if the database cannot be reached or the file is not a database.
pub async fn is_sealed(location: &Location) -> Result<bool, Error> {
    let rows = Query { table: "master_key_check", sql: "SELECT COUNT(*) FROM master_key_check" };
    Ok(run(location, rows).await?.is_some_and(|count| count > 0))
}

/// An SQL query that returns one number, and the name of the table that it reads.
#[derive(Clone, Copy)]
struct Query {
    table: &'static str,
    sql: &'static str,
}

/// Runs the query. Returns `None` if the table does not exist or the query returns NULL.
async fn run(location: &Location, query: Query) -> Result<Option<i64>, Error> {
    match location {
        Location::Sqlite(dir) => {
            let file = dir.join(FILE);
            let read = tokio::task::spawn_blocking(move || query_sqlite(&file, query));
            read.await.map_err(std::io::Error::other)?
        }
        Location::Postgres(url) => {
            tokio::time::timeout(ANSWER_LIMIT, query_postgres(url, query)).await.map_err(|_| {
                let message = format!("PostgreSQL did not answer within {} s", ANSWER_LIMIT.as_secs());
                std::io::Error::new(std::io::ErrorKind::TimedOut, message)
            })?
        }
    }
}

fn query_sqlite(file: &Path, query: Query) -> Result<Option<i64>, Error> {
    if !file.try_exists()? {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(ANSWER_LIMIT)?;
    let table = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = $1";
    if connection.query_row(table, [query.table], |_| Ok(())).optional()?.is_none() {
        return Ok(None);
    }
    Ok(connection.query_row(query.sql, [], |row| row.get(0))?)
}

async fn query_postgres(url: &SecretString, query: Query) -> Result<Option<i64>, Error> {
    let options: PgConnectOptions = url.expose_secret().parse()?;
    let mut connection = options.connect().await?;
    let table = "SELECT CASE WHEN to_regclass($1) IS NULL THEN 0 ELSE 1 END";
    let (has_table,): (i32,) = sqlx::query_as(table).bind(query.table).fetch_one(&mut connection).await?;
    let answer = if has_table == 1 {
        sqlx::query_as::<_, (Option<i64>,)>(query.sql).fetch_one(&mut connection).await?.0
    } else {
        None
    };
    connection.close().await?;
    Ok(answer)
}
