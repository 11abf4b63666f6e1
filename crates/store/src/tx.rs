//! A transaction that runs the same SQL statements on SQLite and PostgreSQL.

use std::sync::Arc;

use herm_types::event::{Event, StoredEvent};
use herm_types::{Clock, DeploymentId, Timestamp};

use crate::Error;
use crate::row::{Row, Value};

pub(crate) enum Session {
    Sqlite(rusqlite::Connection),
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

/// A transaction in progress. Statements run in the order in which they are awaited. Emitted events are numbered at the
/// end of the transaction, so that the row of the event counter is locked only briefly.
pub struct Tx {
    pub(crate) session: Session,
    pub(crate) emitted: Vec<(DeploymentId, Event)>,
    pub(crate) stored: Vec<(DeploymentId, StoredEvent)>,
    pub(crate) work_was_added: bool,
    clock: Arc<dyn Clock>,
    database_tells_time: bool,
}

/// The clauses that lock the selected rows in PostgreSQL. They are removed for SQLite, which does not support them and
/// has only one writer.
const LOCK_SUFFIXES: [&str; 2] = [" FOR UPDATE SKIP LOCKED", " FOR UPDATE"];

impl Tx {
    pub(crate) fn new(session: Session, clock: Arc<dyn Clock>, database_tells_time: bool) -> Self {
        Self {
            session,
            emitted: Vec::new(),
            stored: Vec::new(),
            work_was_added: false,
            clock,
            database_tells_time,
        }
    }

    /// Returns true if all reads of a read transaction see the same state of the database, as they do on SQLite.
    #[cfg(feature = "failpoints")]
    pub fn reads_one_snapshot(&self) -> bool {
        matches!(self.session, Session::Sqlite(_))
    }

    /// Returns the time of this server's clock, which is stored in rows and events.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns the time of the database's clock. Leases and other expiry times use it, because the clocks of several
    /// servers may differ.
    pub async fn database_now(&mut self) -> Result<Timestamp, Error> {
        if !self.database_tells_time {
            return Ok(self.clock.now());
        }
        let row = self
            .one("SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)", &[])
            .await?
            .ok_or_else(|| Error::Corrupt("the database returned no time".to_owned()))?;
        row.time(0)
    }

    /// Emits an event. It is appended to the deployment's event log when the transaction commits.
    pub fn emit(&mut self, deployment_id: DeploymentId, event: Event) {
        self.emitted.push((deployment_id, event));
    }

    /// Runs a statement and returns the number of rows that it inserted, changed or deleted.
    pub(crate) async fn execute(&mut self, sql: &'static str, params: &[Value]) -> Result<u64, Error> {
        match &mut self.session {
            Session::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                bind_sqlite(&mut statement, params)?;
                Ok(statement.raw_execute()? as u64)
            }
            Session::Postgres(connection) => {
                Ok(bind_postgres(sql, params).execute(&mut **connection).await?.rows_affected())
            }
        }
    }

    /// Runs a statement and returns all its rows. Statements should limit the number of rows with LIMIT.
    pub(crate) async fn all(&mut self, sql: &'static str, params: &[Value]) -> Result<Vec<Row>, Error> {
        match &mut self.session {
            Session::Sqlite(connection) => {
                let sql = LOCK_SUFFIXES.iter().find_map(|suffix| sql.strip_suffix(suffix)).unwrap_or(sql);
                let mut statement = connection.prepare_cached(sql)?;
                bind_sqlite(&mut statement, params)?;
                let columns = statement.column_count();
                let mut found = Vec::new();
                let mut rows = statement.raw_query();
                while let Some(row) = rows.next()? {
                    let values =
                        (0..columns).map(|column| sqlite_value(row, column)).collect::<Result<_, _>>()?;
                    found.push(Row(values));
                }
                Ok(found)
            }
            Session::Postgres(connection) => {
                let rows = bind_postgres(sql, params).fetch_all(&mut **connection).await?;
                rows.iter().map(postgres_row).collect()
            }
        }
    }

    /// Runs a statement and returns its first row, or `None` if it returns no rows.
    pub(crate) async fn one(&mut self, sql: &'static str, params: &[Value]) -> Result<Option<Row>, Error> {
        Ok(self.all(sql, params).await?.into_iter().next())
    }

    /// Runs one or more statements without parameters, for example a migration.
    pub(crate) async fn script(&mut self, sql: &'static str) -> Result<(), Error> {
        match &mut self.session {
            Session::Sqlite(connection) => connection.execute_batch(sql)?,
            Session::Postgres(connection) => {
                sqlx::raw_sql(sql).execute(&mut **connection).await?;
            }
        }
        Ok(())
    }
}

fn bind_sqlite(statement: &mut rusqlite::Statement<'_>, params: &[Value]) -> Result<(), Error> {
    for (index, value) in params.iter().enumerate() {
        match value {
            Value::Int(value) => statement.raw_bind_parameter(index + 1, value)?,
            Value::Text(value) => statement.raw_bind_parameter(index + 1, value)?,
        }
    }
    Ok(())
}

fn sqlite_value(row: &rusqlite::Row<'_>, column: usize) -> Result<Value, Error> {
    use rusqlite::types::ValueRef;
    match row.get_ref(column)? {
        ValueRef::Null => Ok(Value::Text(None)),
        ValueRef::Integer(value) => Ok(Value::Int(Some(value))),
        ValueRef::Text(bytes) => std::str::from_utf8(bytes)
            .map(Value::from)
            .map_err(|_| Error::Corrupt(format!("column {column} is not UTF-8"))),
        ValueRef::Real(_) | ValueRef::Blob(_) => {
            Err(Error::Corrupt(format!("column {column} has a type that is never written")))
        }
    }
}

type PostgresQuery<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

fn bind_postgres(sql: &'static str, params: &[Value]) -> PostgresQuery<'static> {
    params.iter().fold(sqlx::query(sql), |query, value| match value {
        Value::Int(value) => query.bind(*value),
        Value::Text(value) => query.bind(value.clone()),
    })
}

fn postgres_row(row: &sqlx::postgres::PgRow) -> Result<Row, Error> {
    use sqlx::{Column as _, Row as _, TypeInfo as _};
    let values = row.columns().iter().enumerate().map(|(index, column)| match column.type_info().name() {
        "INT8" => Ok(Value::Int(row.try_get(index)?)),
        "INT4" => Ok(Value::Int(row.try_get::<Option<i32>, _>(index)?.map(i64::from))),
        _ => Ok(Value::Text(row.try_get(index)?)),
    });
    values.collect::<Result<_, Error>>().map(Row)
}
