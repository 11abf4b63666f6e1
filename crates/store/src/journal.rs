//! The journal: each effect's intent is written before it, its result after it.
//!
//! Step n of a run is one model call (`call_no` 0) and the tool calls it asked for (`call_no` 1 and on). An
//! intent without a result is what a worker that takes the run over finds of an effect that may have happened.

use herm_types::{RunId, ThreadId};

use crate::row::params;
use crate::{Error, Tx};

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    Model,
    Tool,
}

impl StepKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Tool => "tool",
        }
    }
}

/// Where a step stands in its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub run_id: RunId,
    pub step_no: i64,
    /// 0 is the model call, tool calls count from 1.
    pub call_no: i64,
}

/// A step as the journal holds it; `intent` and `result` are JSON documents of whoever runs the step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub position: Position,
    pub kind: StepKind,
    /// The model or the tool.
    pub name: String,
    pub intent: String,
    pub result: Option<String>,
}

/// Records that an effect is about to be made. One that is recorded already keeps its time, and takes the new
/// intent.
pub async fn record_intent(
    tx: &mut Tx,
    position: Position,
    kind: StepKind,
    name: &str,
    intent: &str,
) -> Result<(), Error> {
    let now = tx.now();
    tx.execute(
        "INSERT INTO steps (run_id, step_no, call_no, kind, name, intent, result, started_at, ended_at) \
         VALUES ($1, $2, $3, $4, $5, $6, NULL, $7, NULL) \
         ON CONFLICT (run_id, step_no, call_no) DO UPDATE SET intent = excluded.intent",
        params![
            position.run_id.to_string(),
            position.step_no,
            position.call_no,
            kind.as_str(),
            name,
            intent,
            now,
        ],
    )
    .await?;
    Ok(())
}

/// Records what an effect gave.
///
/// # Errors
/// [`Error::Corrupt`] if its intent was not recorded, or a result already is: an effect was made twice.
pub async fn record_result(tx: &mut Tx, position: Position, result: &str) -> Result<(), Error> {
    let now = tx.now();
    let changed = tx
        .execute(
            "UPDATE steps SET result = $1, ended_at = $2 \
             WHERE run_id = $3 AND step_no = $4 AND call_no = $5 AND result IS NULL",
            params![result, now, position.run_id.to_string(), position.step_no, position.call_no],
        )
        .await?;
    if changed == 1 { Ok(()) } else { Err(Error::Corrupt(format!("{position:?} has no open intent"))) }
}

/// How long ago a step was begun, in milliseconds.
pub async fn age_ms(tx: &mut Tx, position: Position) -> Result<i64, Error> {
    let now = tx.now();
    let row = tx
        .one(
            "SELECT started_at FROM steps WHERE run_id = $1 AND step_no = $2 AND call_no = $3",
            params![position.run_id.to_string(), position.step_no, position.call_no],
        )
        .await?;
    let started_at = row.map(|row| row.time(0)).transpose()?;
    Ok(started_at.map_or(0, |started_at| (now.as_micros() - started_at.as_micros()).max(0) / 1000))
}

/// The tool calls of a run that were begun and have no result.
pub async fn open_tools(tx: &mut Tx, run_id: RunId) -> Result<Vec<Position>, Error> {
    let rows = tx
        .all(
            "SELECT step_no, call_no FROM steps WHERE run_id = $1 AND call_no > 0 AND result IS NULL",
            params![run_id.to_string()],
        )
        .await?;
    rows.iter().map(|row| Ok(Position { run_id, step_no: row.int(0)?, call_no: row.int(1)? })).collect()
}

/// The steps of a thread's runs from `from_run` on, in order.
pub async fn of_thread(tx: &mut Tx, thread_id: ThreadId, from_run: RunId) -> Result<Vec<Step>, Error> {
    let rows = tx
        .all(
            "SELECT steps.run_id, step_no, call_no, kind, name, intent, result FROM runs \
             JOIN steps ON steps.run_id = runs.run_id WHERE runs.thread_id = $1 AND runs.run_id >= $2 \
             ORDER BY steps.run_id, step_no, call_no",
            params![thread_id.to_string(), from_run.to_string()],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let kind = match row.str(3)? {
                "model" => StepKind::Model,
                "tool" => StepKind::Tool,
                other => return Err(Error::Corrupt(format!("unknown kind of step {other:?}"))),
            };
            Ok(Step {
                position: Position { run_id: row.parse(0)?, step_no: row.int(1)?, call_no: row.int(2)? },
                kind,
                name: row.text(4)?,
                intent: row.text(5)?,
                result: row.opt_str(6)?.map(str::to_owned),
            })
        })
        .collect()
}
