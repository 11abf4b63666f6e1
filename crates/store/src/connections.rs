//! Connections that programs in sandboxes made or attempted to make. Each attempt is recorded before its first byte is
//! sent.

use std::collections::BTreeMap;

use herm_types::connection::{ConnectionVerdict, StepConnection};
use herm_types::{DeploymentId, RunId};

use crate::journal::Position;
use crate::row::{Row, params};
use crate::{Error, Tx};

/// The maximum number of connection attempts stored as individual rows per tool call. Further attempts by the same call
/// only increment a counter in one extra row. Attempts that belong to no tool call have the same limit per deployment.
/// Once it is reached, each new attempt replaces the oldest one.
pub const MAX_PER_CALL: i64 = 1000;
/// The maximum number of connections that [`of_calls`] lists for one tool call. [`CallConnections::total`] also counts
/// the connections that are not listed.
pub const MAX_LISTED_PER_CALL: i64 = 100;
/// The maximum length of a stored host, reason or error, in bytes. Longer texts are truncated. Valid DNS names and the
/// messages of the egress proxy are always shorter.
const MAX_TEXT_BYTES: usize = 512;

/// The value of the column `verdict` in the extra row that counts a tool call's attempts beyond [`MAX_PER_CALL`].
const SUMMED: &str = "summed";
/// The error stored for connections that were open when the server was killed.
const INTERRUPTED: &str =
    "the server was killed while this connection was open; the bytes transferred are unknown";

/// An attempt by a program in a sandbox to connect to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewConnection {
    /// A random number that identifies the connection. Recording a second connection with the same number fails.
    pub connection_id: i64,
    pub host: String,
    pub port: u16,
    /// `Ok` if the egress policy allowed the connection, otherwise the reason for the denial.
    pub verdict: Result<(), String>,
}

/// The end of a connection: the bytes transferred, and the error if the connection failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedConnection {
    pub connection_id: i64,
    pub sent_bytes: i64,
    pub received_bytes: i64,
    pub error: Option<String>,
}

/// The columns of the table `connections` that identify the tool call to which a connection attempt belongs. If
/// `run_id` is empty, the attempt belongs to no tool call.
struct JournalEntry {
    run_id: String,
    step_no: i64,
    call_no: i64,
}

/// Records a connection attempt and returns the id of the row that stores it.
///
/// The attempt is assigned to the tool call `claimed` if that call belongs to an active run of this deployment and has
/// no result yet. Otherwise it is assigned to the deployment's latest tool call without a result. If there is none, it
/// belongs to no tool call.
///
/// # Errors
/// Returns [`Error::DeploymentDeleted`] if the attempt belongs to no tool call and the deployment has been deleted.
pub async fn record(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    claimed: Option<Position>,
    new: &NewConnection,
) -> Result<i64, Error> {
    let mut entry = match claimed {
        Some(position) => lock_open_call(tx, deployment_id, position).await?,
        None => None,
    };
    if entry.is_none()
        && let Some(latest) = latest_open_call(tx, deployment_id).await?
    {
        entry = lock_open_call(tx, deployment_id, latest).await?;
    }
    let is_of_call = entry.is_some();
    let entry = match entry {
        Some(entry) => entry,
        None => lock_deployment(tx, deployment_id).await?,
    };
    let number = last_number(tx, deployment_id, &entry).await? + 1;
    if number > MAX_PER_CALL {
        if is_of_call {
            return record_summed(tx, deployment_id, &entry, new).await;
        }
        remove_up_to(tx, deployment_id, &entry, number - MAX_PER_CALL).await?;
    }
    insert(tx, deployment_id, &entry, number, new).await?;
    Ok(new.connection_id)
}

/// Locks the row of a tool call in the table `steps`. Returns the call's run id, step number and call number, or `None`
/// if the call has a result or its run has ended. The lock prevents the erasure of the call's run while a connection is
/// recorded.
async fn lock_open_call(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    Position { run_id, step_no, call_no }: Position,
) -> Result<Option<JournalEntry>, Error> {
    let run_id = run_id.to_string();
    let is_ours = tx
        .one(
            "SELECT 1 FROM runs WHERE run_id = $1 AND deployment_id = $2 AND ended_at IS NULL",
            params![run_id.as_str(), deployment_id.to_string()],
        )
        .await?
        .is_some();
    let open = "SELECT 1 FROM steps WHERE run_id = $1 AND step_no = $2 AND call_no = $3 AND call_no > 0 \
                AND result IS NULL FOR UPDATE";
    let is_open = is_ours && tx.one(open, params![run_id.as_str(), step_no, call_no]).await?.is_some();
    Ok(is_open.then_some(JournalEntry { run_id, step_no, call_no }))
}

async fn latest_open_call(tx: &mut Tx, deployment_id: DeploymentId) -> Result<Option<Position>, Error> {
    tx.one(
        "SELECT s.run_id, s.step_no, s.call_no FROM threads t JOIN steps s ON s.run_id = t.active_run_id \
         WHERE t.deployment_id = $1 AND t.active_run_id IS NOT NULL AND s.result IS NULL AND s.call_no > 0 \
         ORDER BY s.started_at DESC, s.run_id DESC, s.step_no DESC, s.call_no DESC LIMIT 1",
        params![deployment_id.to_string()],
    )
    .await?
    .map(|row| Ok(Position { run_id: row.parse(0)?, step_no: row.int(1)?, call_no: row.int(2)? }))
    .transpose()
}

/// Locks the deployment's row, so that the deployment cannot be deleted while a connection is recorded. Returns the
/// entry for connection attempts that belong to no tool call.
async fn lock_deployment(tx: &mut Tx, deployment_id: DeploymentId) -> Result<JournalEntry, Error> {
    tx.one(
        "SELECT 1 FROM deployments WHERE deployment_id = $1 FOR UPDATE",
        params![deployment_id.to_string()],
    )
    .await?
    .ok_or(Error::DeploymentDeleted)?;
    Ok(JournalEntry { run_id: String::new(), step_no: 0, call_no: 0 })
}

async fn last_number(tx: &mut Tx, deployment_id: DeploymentId, entry: &JournalEntry) -> Result<i64, Error> {
    let row = tx
        .one(
            "SELECT MAX(connection_no) FROM connections \
             WHERE deployment_id = $1 AND run_id = $2 AND step_no = $3 AND call_no = $4",
            params![deployment_id.to_string(), entry.run_id.as_str(), entry.step_no, entry.call_no],
        )
        .await?;
    Ok(row.map(|row| row.opt_int(0)).transpose()?.flatten().unwrap_or(0))
}

async fn insert(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    entry: &JournalEntry,
    number: i64,
    new: &NewConnection,
) -> Result<(), Error> {
    let (verdict, reason) = match &new.verdict {
        Ok(()) => (ConnectionVerdict::Allowed, None),
        Err(reason) => (ConnectionVerdict::Denied, Some(bounded(reason))),
    };
    let now = tx.now();
    // Nothing is ever sent over a denied connection, so it is recorded as already ended, with 0 bytes.
    let (bytes, ended_at) = match verdict {
        ConnectionVerdict::Allowed => (None, None),
        ConnectionVerdict::Denied => (Some(0), Some(now.as_micros())),
    };
    tx.execute(
        "INSERT INTO connections (connection_id, deployment_id, run_id, step_no, call_no, connection_no, host, port, \
         verdict, reason, attempts, sent_bytes, received_bytes, error, opened_at, ended_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 1, $11, $11, NULL, $12, $13)",
        params![
            new.connection_id,
            deployment_id.to_string(),
            entry.run_id.as_str(),
            entry.step_no,
            entry.call_no,
            number,
            bounded(&new.host),
            i64::from(new.port),
            verdict.as_str(),
            reason,
            bytes,
            now,
            ended_at,
        ],
    )
    .await?;
    Ok(())
}

/// Counts an attempt in the extra row of a tool call that has reached [`MAX_PER_CALL`]. Returns the id of that row.
async fn record_summed(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    entry: &JournalEntry,
    new: &NewConnection,
) -> Result<i64, Error> {
    let now = tx.now();
    let row = tx
        .one(
            "INSERT INTO connections (connection_id, deployment_id, run_id, step_no, call_no, connection_no, host, \
             port, verdict, reason, attempts, sent_bytes, received_bytes, error, opened_at, ended_at) \
             VALUES ($1, $2, $3, $4, $5, $6, '*', 0, $7, NULL, 1, 0, 0, NULL, $8, $8) \
             ON CONFLICT (deployment_id, run_id, step_no, call_no, connection_no) \
             DO UPDATE SET attempts = connections.attempts + 1, ended_at = excluded.ended_at RETURNING connection_id",
            params![
                new.connection_id,
                deployment_id.to_string(),
                entry.run_id.as_str(),
                entry.step_no,
                entry.call_no,
                MAX_PER_CALL + 1,
                SUMMED,
                now,
            ],
        )
        .await?;
    row.map_or_else(|| Err(Error::Corrupt("an upsert returned no row".to_owned())), |row| row.int(0))
}

/// Removes the oldest connections recorded for `entry`: those whose number is at most `up_to`.
async fn remove_up_to(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    entry: &JournalEntry,
    up_to: i64,
) -> Result<(), Error> {
    tx.execute(
        "DELETE FROM connections WHERE deployment_id = $1 AND run_id = $2 AND step_no = $3 AND call_no = $4 \
         AND connection_no <= $5",
        params![deployment_id.to_string(), entry.run_id.as_str(), entry.step_no, entry.call_no, up_to],
    )
    .await?;
    Ok(())
}

/// Records that connections have ended. Skips connections that were removed and connections that have already ended.
pub async fn end(tx: &mut Tx, ended: &[EndedConnection]) -> Result<(), Error> {
    let now = tx.now();
    for end in ended {
        tx.execute(
            "UPDATE connections SET sent_bytes = COALESCE(sent_bytes, 0) + $1, \
             received_bytes = COALESCE(received_bytes, 0) + $2, error = COALESCE($3, error), ended_at = $4 \
             WHERE connection_id = $5 AND (ended_at IS NULL OR verdict = $6)",
            params![
                end.sent_bytes,
                end.received_bytes,
                end.error.as_deref().map(bounded),
                now,
                end.connection_id,
                SUMMED,
            ],
        )
        .await?;
    }
    Ok(())
}

/// Marks all open connections as ended and returns how many there were. Called when the server starts and holds the
/// exclusive lock on the database. No other server is running then, so connections that are still marked as open
/// belonged to a server process that was killed. The number of bytes that they transferred remains unknown.
pub async fn end_all(tx: &mut Tx) -> Result<u64, Error> {
    let now = tx.now();
    tx.execute(
        "UPDATE connections SET error = $1, ended_at = $2 WHERE ended_at IS NULL",
        params![INTERRUPTED, now],
    )
    .await
}

/// The first connections of one tool call, and the number of all its connection attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallConnections {
    pub listed: Vec<StepConnection>,
    pub total: i64,
}

/// Returns the connections made by a run's tool calls, beginning with the call `first` and ending with the call `last`.
/// Each call is identified by its step number and call number.
pub async fn of_calls(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    run_id: RunId,
    first: (i64, i64),
    last: (i64, i64),
) -> Result<BTreeMap<(i64, i64), CallConnections>, Error> {
    let (deployment_id, run_id) = (deployment_id.to_string(), run_id.to_string());
    let totals = tx
        .all(
            "SELECT step_no, call_no, CAST(SUM(attempts) AS BIGINT) FROM connections \
             WHERE deployment_id = $1 AND run_id = $2 AND (step_no, call_no) >= ($3, $4) \
             AND (step_no, call_no) <= ($5, $6) GROUP BY step_no, call_no",
            params![deployment_id.as_str(), run_id.as_str(), first.0, first.1, last.0, last.1],
        )
        .await?;
    let mut calls = BTreeMap::new();
    for row in &totals {
        calls.insert((row.int(0)?, row.int(1)?), CallConnections { listed: Vec::new(), total: row.int(2)? });
    }
    let listed = tx
        .all(
            "SELECT step_no, call_no, host, port, verdict, reason, sent_bytes, received_bytes, error, opened_at, \
             ended_at FROM connections WHERE deployment_id = $1 AND run_id = $2 AND (step_no, call_no) >= ($3, $4) \
             AND (step_no, call_no) <= ($5, $6) AND connection_no <= $7 ORDER BY step_no, call_no, connection_no",
            params![deployment_id, run_id, first.0, first.1, last.0, last.1, MAX_LISTED_PER_CALL],
        )
        .await?;
    for row in &listed {
        calls.entry((row.int(0)?, row.int(1)?)).or_default().listed.push(connection(row)?);
    }
    Ok(calls)
}

fn connection(row: &Row) -> Result<StepConnection, Error> {
    let (port, verdict) = (row.int(3)?, row.str(4)?);
    Ok(StepConnection {
        host: row.text(2)?,
        port: u16::try_from(port)
            .map_err(|_| Error::Corrupt(format!("a connection has the invalid port {port}")))?,
        verdict: ConnectionVerdict::parse(verdict)
            .ok_or_else(|| Error::Corrupt(format!("unknown connection verdict {verdict:?}")))?,
        reason: row.opt_str(5)?.map(str::to_owned),
        sent_bytes: row.opt_int(6)?,
        received_bytes: row.opt_int(7)?,
        error: row.opt_str(8)?.map(str::to_owned),
        opened_at: row.time(9)?,
        ended_at: row.opt_time(10)?,
    })
}

/// Truncates a text to [`MAX_TEXT_BYTES`] and replaces NUL characters, which PostgreSQL does not accept.
fn bounded(text: &str) -> String {
    let kept = text.get(..text.floor_char_boundary(MAX_TEXT_BYTES)).unwrap_or_default();
    kept.replace('\0', "\u{fffd}")
}
