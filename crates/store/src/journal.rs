//! The journal of a run: one entry for each of its model calls and tool calls. An entry first records the intent to
//! make the call, and later the result of the call.
//!
//! Step n of a run is one model call (`call_no` 0) and the tool calls that its reply requested (`call_no` 1 and up). An
//! intent without a result means that the call may or may not have been made. A worker that resumes the run must handle
//! both cases.

use herm_types::run::StepKind;
use herm_types::{RunId, ThreadId, Timestamp};

use crate::row::{Row, params};
use crate::{Error, Tx};

fn kind_text(kind: StepKind) -> &'static str {
    match kind {
        StepKind::Model => "model",
        StepKind::Tool => "tool",
    }
}

fn parse_kind(text: &str) -> Result<StepKind, Error> {
    match text {
        "model" => Ok(StepKind::Model),
        "tool" => Ok(StepKind::Tool),
        other => Err(Error::Corrupt(format!("unknown kind of journal entry {other:?}"))),
    }
}

/// The position of a journal entry: its run, step number and call number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub run_id: RunId,
    pub step_no: i64,
    /// 0 for the step's model call. The step's tool calls are numbered from 1.
    pub call_no: i64,
}

impl Position {
    /// Returns the call name of a tool call: a unique string of run id, step number and call number. It is also the id
    /// of the command that the call executes in the sandbox.
    pub fn call_name(self) -> String {
        let Self { run_id, step_no, call_no } = self;
        format!("{run_id}.{step_no}.{call_no}")
    }

    /// Parses a call name, which consists of run id, step number and call number. Returns `None` if it is invalid. The
    /// name is untrusted, because programs in a sandbox can send any name to the proxy.
    pub fn parse_call_name(name: &str) -> Option<Self> {
        let mut parts = name.split('.');
        let (run_id, step_no, call_no) = (parts.next()?, parts.next()?, parts.next()?);
        let number = |text: &str| text.parse::<u32>().ok().map(i64::from);
        let position =
            Self { run_id: run_id.parse().ok()?, step_no: number(step_no)?, call_no: number(call_no)? };
        parts.next().is_none().then_some(position)
    }
}

/// A journal entry: a model call or a tool call. `intent` and `result` are JSON documents that the worker defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub position: Position,
    pub kind: StepKind,
    /// The name of the called model or tool.
    pub name: String,
    pub intent: String,
    pub result: Option<String>,
}

/// Records the intent to make a call. If the position already has an intent, replaces the intent and the name of the
/// called model or tool, because a retry may use another model. The start time stays the same.
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
         ON CONFLICT (run_id, step_no, call_no) DO UPDATE SET intent = excluded.intent, \
         name = excluded.name",
        params![
            position.run_id.to_string(),
            position.step_no,
            position.call_no,
            kind_text(kind),
            name,
            intent,
            now,
        ],
    )
    .await?;
    Ok(())
}

/// Records the result of a call.
///
/// # Errors
/// Returns [`Error::Corrupt`] if there is no intent at this position. Also returns it if there already is a result,
/// which means that the call was made twice.
pub async fn record_result(tx: &mut Tx, position: Position, result: &str) -> Result<(), Error> {
    let now = tx.now();
    let changed = tx
        .execute(
            "UPDATE steps SET result = $1, ended_at = $2 \
             WHERE run_id = $3 AND step_no = $4 AND call_no = $5 AND result IS NULL",
            params![result, now, position.run_id.to_string(), position.step_no, position.call_no],
        )
        .await?;
    if changed == 1 {
        Ok(())
    } else {
        Err(Error::Corrupt(format!("the journal has no entry without a result at {position:?}")))
    }
}

/// Returns the milliseconds since the intent at this position was first recorded, or 0 if there is none.
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

/// Returns the positions of the run's tool calls that have an intent but no result.
pub async fn open_tools(tx: &mut Tx, run_id: RunId) -> Result<Vec<Position>, Error> {
    let rows = tx
        .all(
            "SELECT step_no, call_no FROM steps WHERE run_id = $1 AND call_no > 0 AND result IS NULL",
            params![run_id.to_string()],
        )
        .await?;
    rows.iter().map(|row| Ok(Position { run_id, step_no: row.int(0)?, call_no: row.int(1)? })).collect()
}

/// Returns all journal entries of the thread's runs, beginning with the run `from_run`, in order.
pub async fn of_thread(tx: &mut Tx, thread_id: ThreadId, from_run: RunId) -> Result<Vec<Step>, Error> {
    let rows = tx
        .all(
            "SELECT steps.run_id, step_no, call_no, kind, name, intent, result FROM runs \
             JOIN steps ON steps.run_id = runs.run_id WHERE runs.thread_id = $1 AND runs.run_id >= $2 \
             ORDER BY steps.run_id, step_no, call_no",
            params![thread_id.to_string(), from_run.to_string()],
        )
        .await?;
    rows.iter().map(step).collect()
}

/// Returns the journal entries of a run's steps from `from_step` on, in order.
pub async fn of_run_from(tx: &mut Tx, run_id: RunId, from_step: i64) -> Result<Vec<Step>, Error> {
    let rows = tx
        .all(
            "SELECT run_id, step_no, call_no, kind, name, intent, result FROM steps \
             WHERE run_id = $1 AND step_no >= $2 ORDER BY step_no, call_no",
            params![run_id.to_string(), from_step],
        )
        .await?;
    rows.iter().map(step).collect()
}

fn step(row: &Row) -> Result<Step, Error> {
    Ok(Step {
        position: Position { run_id: row.parse(0)?, step_no: row.int(1)?, call_no: row.int(2)? },
        kind: parse_kind(row.str(3)?)?,
        name: row.text(4)?,
        intent: row.text(5)?,
        result: row.opt_str(6)?.map(str::to_owned),
    })
}

/// A journal entry without its intent, with the times at which the call started and ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimedStep {
    pub position: Position,
    pub kind: StepKind,
    pub name: String,
    pub result: Option<String>,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

/// Returns up to `limit` journal entries of a run, in order. Begins after the entry with the step number and call
/// number `after`.
pub async fn of_run(
    tx: &mut Tx,
    run_id: RunId,
    after: (i64, i64),
    limit: i64,
) -> Result<Vec<TimedStep>, Error> {
    let rows = tx
        .all(
            "SELECT step_no, call_no, kind, name, result, started_at, ended_at FROM steps WHERE run_id = $1 \
             AND (step_no > $2 OR (step_no = $2 AND call_no > $3)) ORDER BY step_no, call_no LIMIT $4",
            params![run_id.to_string(), after.0, after.1, limit],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(TimedStep {
                position: Position { run_id, step_no: row.int(0)?, call_no: row.int(1)? },
                kind: parse_kind(row.str(2)?)?,
                name: row.text(3)?,
                result: row.opt_str(4)?.map(str::to_owned),
                started_at: row.time(5)?,
                ended_at: row.opt_time(6)?,
            })
        })
        .collect()
}

/// Returns the result of a step's model call, or `None` while it has none.
pub async fn model_result(tx: &mut Tx, run_id: RunId, step_no: i64) -> Result<Option<String>, Error> {
    let row = tx
        .one(
            "SELECT result FROM steps WHERE run_id = $1 AND step_no = $2 AND call_no = 0",
            params![run_id.to_string(), step_no],
        )
        .await?;
    Ok(row.map(|row| row.opt_str(0).map(|text| text.map(str::to_owned))).transpose()?.flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_name_parses_back_and_invalid_names_are_rejected() {
        let run_id = "run_01h455vb4pex5vsknk084sn02q";
        let position = Position::parse_call_name(&format!("{run_id}.3.12")).unwrap();
        assert_eq!(position.call_name(), format!("{run_id}.3.12"));
        let wrong = ["", "..", "x.1.1", run_id, ".1.1"].map(str::to_owned);
        let wrong_ends = ["", ".1", ".1.", ".1.-1", ".1.1.1", ".1.99999999999", ".a.b"];
        for name in wrong.into_iter().chain(wrong_ends.map(|end| format!("{run_id}{end}"))) {
            assert_eq!(Position::parse_call_name(&name), None, "{name}");
        }
    }
}
