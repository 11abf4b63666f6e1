//! The event log: one gapless sequence of events for each deployment.

use std::sync::Arc;

use herm_types::event::{Event, StoredEvent};
use herm_types::id::EventId;
use herm_types::{DeploymentId, RunId, Timestamp};

use crate::row::{Row, params};
use crate::{Error, Tx};

/// The maximum number of events that one read returns.
pub const MAX_READ: i64 = 500;

/// Numbers the events that the transaction emitted and writes them to the event log. Called at the end of each
/// transaction.
pub(crate) async fn write_emitted(tx: &mut Tx) -> Result<(), Error> {
    let mut emitted = std::mem::take(&mut tx.emitted);
    // Event counters are locked in the order of deployment ids, so that two transactions cannot deadlock.
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

/// Returns the id of the latest event in a deployment's event log, or `evt_0` if the log is empty.
pub async fn head(tx: &mut Tx, deployment_id: DeploymentId) -> Result<EventId, Error> {
    tx.one("SELECT last_seq FROM event_counters WHERE deployment_id = $1", params![deployment_id.to_string()])
        .await?
        .map(|row| row.int(0).map(EventId))
        .unwrap_or(Err(Error::DeploymentDeleted))
}

/// The retained range of a deployment's event log: the events after `trimmed`, up to `head`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetainedRange {
    /// The latest event that was removed because of its age, or `evt_0` if none was removed.
    pub trimmed: EventId,
    /// The latest event, or `evt_0` if the log is empty.
    pub head: EventId,
}

/// Returns the retained range of a deployment's event log.
pub async fn retained_range(tx: &mut Tx, deployment_id: DeploymentId) -> Result<RetainedRange, Error> {
    let row = tx
        .one(
            "SELECT trimmed_seq, last_seq FROM event_counters WHERE deployment_id = $1",
            params![deployment_id.to_string()],
        )
        .await?
        .ok_or(Error::DeploymentDeleted)?;
    Ok(RetainedRange { trimmed: EventId(row.int(0)?), head: EventId(row.int(1)?) })
}

/// Returns up to `limit` deployments whose oldest event was written before `before`, ordered by id. To continue after a
/// previous call, pass the last deployment that it returned as `after`.
pub async fn deployments_with_older(
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

/// Removes a deployment's oldest events that were written before `before`, up to `limit`. Returns how many it removed.
///
/// Stops at the first event of an active run. An active run needs its events: from them it learns which text it has
/// already published.
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

/// Returns a deployment's events after the event `after`, in order. Returns at most `limit` events, and never more than
/// [`MAX_READ`].
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

/// Returns the `token` and `message` events of a run that follow the event `after`, oldest first.
pub async fn text_after(
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
