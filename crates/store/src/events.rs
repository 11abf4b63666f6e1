//! The event log: one gapless sequence for each deployment.

use std::sync::Arc;

use herm_types::event::{Event, StoredEvent};
use herm_types::id::EventId;
use herm_types::{DeploymentId, RunId, Timestamp};

use crate::row::{Row, params};
use crate::{Error, Tx};

/// The most events one read gives.
pub const MAX_READ: i64 = 500;

/// Numbers and writes what the transaction emitted; its last act.
pub(crate) async fn write_emitted(tx: &mut Tx) -> Result<(), Error> {
    let mut emitted = std::mem::take(&mut tx.emitted);
    // Counters are locked in one order, so that two transactions never wait for each other.
    emitted.sort_by_key(|(deployment_id, _)| *deployment_id);
    for of_one in emitted.chunk_by(|(left, _), (right, _)| left == right) {
        if let Some((deployment_id, _)) = of_one.first() {
            write_of_one(tx, *deployment_id, of_one).await?;
        }
    }
    Ok(())
}

async fn write_of_one(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    emitted: &[(DeploymentId, Event)],
) -> Result<(), Error> {
    let count = i64::try_from(emitted.len()).unwrap_or(i64::MAX);
    let row = tx
        .one(
            "UPDATE event_counters SET last_seq = last_seq + $1 WHERE deployment_id = $2 AND closed = 0 \
             RETURNING last_seq",
            params![count, deployment_id.to_string()],
        )
        .await?
        .ok_or(Error::DeploymentDeleted)?;
    let first = row.int(0)? - count + 1;
    let created_at = tx.now();
    for (seq, (_, event)) in (first..).zip(emitted) {
        let data = serde_json::to_string(event)?;
        let (run_id, thread_id) = event.scope().unzip();
        tx.execute(
            "INSERT INTO events (deployment_id, seq, event, run_id, thread_id, data, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            params![
                deployment_id.to_string(),
                seq,
                event.type_name(),
                run_id.map(|id| id.to_string()),
                thread_id.map(|id| id.to_string()),
                data.as_str(),
                created_at,
            ],
        )
        .await?;
        let stored = StoredEvent {
            event_id: EventId(seq),
            event: Arc::from(event.type_name()),
            run_id,
            thread_id,
            data: Arc::from(data),
            created_at,
        };
        tx.stored.push((deployment_id, stored));
    }
    Ok(())
}

/// The id of the latest event; `evt_0` while there is none.
pub async fn head(tx: &mut Tx, deployment_id: DeploymentId) -> Result<EventId, Error> {
    tx.one("SELECT last_seq FROM event_counters WHERE deployment_id = $1", params![deployment_id.to_string()])
        .await?
        .map(|row| row.int(0).map(EventId))
        .unwrap_or(Err(Error::DeploymentDeleted))
}

/// What is kept of a deployment's log: the events behind `trimmed`, up to `head`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The latest event that was removed because of its age; `evt_0` while none was.
    pub trimmed: EventId,
    /// The latest event; `evt_0` while there is none.
    pub head: EventId,
}

/// What is kept of a deployment's log.
pub async fn kept(tx: &mut Tx, deployment_id: DeploymentId) -> Result<Kept, Error> {
    let row = tx
        .one(
            "SELECT trimmed_seq, last_seq FROM event_counters WHERE deployment_id = $1",
            params![deployment_id.to_string()],
        )
        .await?
        .ok_or(Error::DeploymentDeleted)?;
    Ok(Kept { trimmed: EventId(row.int(0)?), head: EventId(row.int(1)?) })
}

/// Up to `limit` deployments behind `after` whose oldest event was written before `before`, in order.
pub async fn with_older(
    tx: &mut Tx,
    after: Option<DeploymentId>,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<DeploymentId>, Error> {
    let rows = tx
        .all(
            "SELECT deployment_id FROM event_counters WHERE deployment_id > $1 AND closed = 0 AND \
             (SELECT created_at FROM events WHERE events.deployment_id = event_counters.deployment_id \
             ORDER BY seq LIMIT 1) < $2 ORDER BY deployment_id LIMIT $3",
            params![after.map(|id| id.to_string()).unwrap_or_default(), before, limit],
        )
        .await?;
    rows.iter().map(|row| row.parse(0)).collect()
}

/// Removes up to `limit` of a deployment's oldest events, all written before `before`; gives how many. It ends at the
/// first event of a run at work, which finds in the log what it has said.
pub async fn trim(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    before: Timestamp,
    limit: i64,
) -> Result<u64, Error> {
    let rows = tx
        .all(
            "SELECT events.seq, events.created_at, runs.run_id FROM events \
             LEFT JOIN runs ON runs.run_id = events.run_id AND runs.ended_at IS NULL \
             WHERE events.deployment_id = $1 ORDER BY events.seq LIMIT $2",
            params![deployment_id.to_string(), limit],
        )
        .await?;
    let mut last = None;
    for row in &rows {
        if row.time(1)? >= before || row.opt_str(2)?.is_some() {
            break;
        }
        last = Some(row.int(0)?);
    }
    let Some(last) = last else { return Ok(0) };
    let removed = tx
        .execute(
            "DELETE FROM events WHERE deployment_id = $1 AND seq <= $2",
            params![deployment_id.to_string(), last],
        )
        .await?;
    tx.execute(
        "UPDATE event_counters SET trimmed_seq = $1 WHERE deployment_id = $2 AND closed = 0",
        params![last, deployment_id.to_string()],
    )
    .await?;
    Ok(removed)
}

/// Events after `after`, in order, at most `limit` and [`MAX_READ`]; unfiltered.
pub async fn read_after(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    after: EventId,
    limit: i64,
) -> Result<Vec<StoredEvent>, Error> {
    let rows = tx
        .all(
            "SELECT seq, event, run_id, thread_id, data, created_at FROM events \
             WHERE deployment_id = $1 AND seq > $2 ORDER BY seq LIMIT $3",
            params![deployment_id.to_string(), after.0, limit.min(MAX_READ)],
        )
        .await?;
    rows.iter().map(event).collect()
}

fn event(row: &Row) -> Result<StoredEvent, Error> {
    Ok(StoredEvent {
        event_id: EventId(row.int(0)?),
        event: Arc::from(row.str(1)?),
        run_id: row.opt_parse(2)?,
        thread_id: row.opt_parse(3)?,
        data: Arc::from(row.str(4)?),
        created_at: row.time(5)?,
    })
}

/// What a run said aloud after `after`, oldest first: its `token` and `message` events.
pub async fn spoken_after(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    run_id: RunId,
    after: EventId,
) -> Result<Vec<StoredEvent>, Error> {
    let rows = tx
        .all(
            "SELECT seq, event, run_id, thread_id, data, created_at FROM events \
             WHERE deployment_id = $1 AND seq > $2 AND run_id = $3 AND event IN ('token', 'message') ORDER BY seq",
            params![deployment_id.to_string(), after.0, run_id.to_string()],
        )
        .await?;
    rows.iter().map(event).collect()
}
