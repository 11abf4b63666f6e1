//! What programs in sandboxes reached, or wanted to: each attempt is a row before a byte goes out.

use std::collections::BTreeMap;

use herm_types::connection::{ConnectionVerdict, StepConnection};
use herm_types::{DeploymentId, RunId};

use crate::journal::Position;
use crate::row::{Row, params};
use crate::{Error, Tx};

/// Attempts of one tool call that have a row each; those beyond are summed up in one more. It is as many of those that
/// belong to no call: of them the latest are kept.
pub const MAX_OF_CALL: i64 = 1000;
/// Connections of one tool call that are listed.
pub const LISTED_OF_CALL: i64 = 100;
/// Bytes of a host, a reason and an error that are kept. Names in the DNS are shorter, and so is what egress says.
const MAX_TEXT_BYTES: usize = 512;

/// Stands for all attempts of a call beyond those that have rows.
const SUMMED: &str = "summed";
/// What is written of connections that a killed server leaves open.
const INTERRUPTED: &str = "the server was interrupted; what went over this connection is not known";

/// An attempt to reach a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewConnection {
    /// Made by chance: two that are the same are refused.
    pub connection_id: i64,
    pub host: String,
    pub port: u16,
    /// `Err`: it was denied, and why.
    pub verdict: Result<(), String>,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub connection_id: i64,
    pub sent_bytes: i64,
    pub received_bytes: i64,
    pub error: Option<String>,
}

/// Where in a run's journal an attempt belongs; run, step and call as they are stored.
struct Place {
    run_id: String,
    step_no: i64,
    call_no: i64,
}

/// Records an attempt and gives the id of its row. It belongs to the call `claimed`, if that is one of this deployment
/// and open; else to the deployment's latest open tool call; else to none.
///
/// # Errors
/// [`Error::DeploymentDeleted`] if no call is open and the deployment is gone.
pub async fn record(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    claimed: Option<Position>,
    new: &NewConnection,
) -> Result<i64, Error> {
    let mut place = match claimed {
        Some(position) => lock_open_call(tx, deployment_id, position).await?,
        None => None,
    };
    if place.is_none()
        && let Some(latest) = latest_open_call(tx, deployment_id).await?
    {
        place = lock_open_call(tx, deployment_id, latest).await?;
    }
    let is_of_call = place.is_some();
    let place = match place {
        Some(place) => place,
        None => lock_none(tx, deployment_id).await?,
    };
    let number = last_number(tx, deployment_id, &place).await? + 1;
    if number > MAX_OF_CALL {
        if is_of_call {
            return sum_up(tx, deployment_id, &place, new).await;
        }
        forget(tx, deployment_id, &place, number - MAX_OF_CALL).await?;
    }
    insert(tx, deployment_id, &place, number, new).await?;
    Ok(new.connection_id)
}

/// The call's place, its row locked: who records its connections takes turns, and who erases the run comes after.
async fn lock_open_call(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    Position { run_id, step_no, call_no }: Position,
) -> Result<Option<Place>, Error> {
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
    Ok(is_open.then_some(Place { run_id, step_no, call_no }))
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

/// The place of what belongs to no call. The deployment's row is locked in place of a call's.
async fn lock_none(tx: &mut Tx, deployment_id: DeploymentId) -> Result<Place, Error> {
    tx.one(
        "SELECT 1 FROM deployments WHERE deployment_id = $1 FOR UPDATE",
        params![deployment_id.to_string()],
    )
    .await?
    .ok_or(Error::DeploymentDeleted)?;
    Ok(Place { run_id: String::new(), step_no: 0, call_no: 0 })
}

async fn last_number(tx: &mut Tx, deployment_id: DeploymentId, place: &Place) -> Result<i64, Error> {
    let row = tx
        .one(
            "SELECT MAX(connection_no) FROM connections \
             WHERE deployment_id = $1 AND run_id = $2 AND step_no = $3 AND call_no = $4",
            params![deployment_id.to_string(), place.run_id.as_str(), place.step_no, place.call_no],
        )
        .await?;
    Ok(row.map(|row| row.opt_int(0)).transpose()?.flatten().unwrap_or(0))
}

async fn insert(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    place: &Place,
    number: i64,
    new: &NewConnection,
) -> Result<(), Error> {
    let (verdict, reason) = match &new.verdict {
        Ok(()) => (ConnectionVerdict::Allowed, None),
        Err(reason) => (ConnectionVerdict::Denied, Some(bounded(reason))),
    };
    let now = tx.now();
    // Nothing goes over one that is denied: it has ended.
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
            place.run_id.as_str(),
            place.step_no,
            place.call_no,
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

/// Adds an attempt to the row that stands for those beyond the limit, and gives that row's id.
async fn sum_up(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    place: &Place,
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
                place.run_id.as_str(),
                place.step_no,
                place.call_no,
                MAX_OF_CALL + 1,
                SUMMED,
                now,
            ],
        )
        .await?;
    row.map_or_else(|| Err(Error::Corrupt("an upsert gave no row".to_owned())), |row| row.int(0))
}

/// Removes the rows of a place up to this number.
async fn forget(tx: &mut Tx, deployment_id: DeploymentId, place: &Place, up_to: i64) -> Result<(), Error> {
    tx.execute(
        "DELETE FROM connections WHERE deployment_id = $1 AND run_id = $2 AND step_no = $3 AND call_no = $4 \
         AND connection_no <= $5",
        params![deployment_id.to_string(), place.run_id.as_str(), place.step_no, place.call_no, up_to],
    )
    .await?;
    Ok(())
}

/// Writes down how connections ended. One that is gone, or has ended, stays as it is.
pub async fn end(tx: &mut Tx, ended: &[Ended]) -> Result<(), Error> {
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

/// Ends all that an earlier server left open; what went over them stays unknown. It is what a server does at its start,
/// when it holds the database alone.
pub async fn end_all(tx: &mut Tx) -> Result<u64, Error> {
    let now = tx.now();
    tx.execute(
        "UPDATE connections SET error = $1, ended_at = $2 WHERE ended_at IS NULL",
        params![INTERRUPTED, now],
    )
    .await
}

/// The connections of one tool call: the first of them, and how many there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfCall {
    pub listed: Vec<StepConnection>,
    pub total: i64,
}

/// The connections of a run's tool calls between two, these included, by step and call.
pub async fn of_calls(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    run_id: RunId,
    first: (i64, i64),
    last: (i64, i64),
) -> Result<BTreeMap<(i64, i64), OfCall>, Error> {
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
        calls.insert((row.int(0)?, row.int(1)?), OfCall { listed: Vec::new(), total: row.int(2)? });
    }
    let listed = tx
        .all(
            "SELECT step_no, call_no, host, port, verdict, reason, sent_bytes, received_bytes, error, opened_at, \
             ended_at FROM connections WHERE deployment_id = $1 AND run_id = $2 AND (step_no, call_no) >= ($3, $4) \
             AND (step_no, call_no) <= ($5, $6) AND connection_no <= $7 ORDER BY step_no, call_no, connection_no",
            params![deployment_id, run_id, first.0, first.1, last.0, last.1, LISTED_OF_CALL],
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
        port: u16::try_from(port).map_err(|_| Error::Corrupt(format!("{port} is no port")))?,
        verdict: ConnectionVerdict::parse(verdict)
            .ok_or_else(|| Error::Corrupt(format!("unknown verdict {verdict:?}")))?,
        reason: row.opt_str(5)?.map(str::to_owned),
        sent_bytes: row.opt_int(6)?,
        received_bytes: row.opt_int(7)?,
        error: row.opt_str(8)?.map(str::to_owned),
        opened_at: row.time(9)?,
        ended_at: row.opt_time(10)?,
    })
}

/// As much of a text as is kept, without the NUL that PostgreSQL does not take.
fn bounded(text: &str) -> String {
    let kept = text.get(..text.floor_char_boundary(MAX_TEXT_BYTES)).unwrap_or_default();
    kept.replace('\0', "\u{fffd}")
}
