//! The steps of a run: its model calls and tool calls, read from the journal.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;

use herm_store::connections::{self, CallConnections};
use herm_store::journal::{self, TimedStep};
use herm_store::{Tx, runs};
use herm_types::key::Scope;
use herm_types::model::{ModelReply, ToolOutcome};
use herm_types::paging::{Page, PageRequest};
use herm_types::run::{RunStep, StepKind, StepStatus};
use herm_types::{DeploymentId, RunId};

use crate::{App, Caller, Error};

/// The cursor of a page of steps: the step number and the call number of the last call on the previous page.
/// The call number of a model call is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepCursor(i64, i64);

impl fmt::Display for StepCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The error for a string that is not a cursor of a page of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidCursor;

impl FromStr for StepCursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (step, call) = text.split_once('.').ok_or(InvalidCursor)?;
        let number = |text: &str| text.parse::<u32>().map(i64::from).map_err(|_| InvalidCursor);
        Ok(Self(number(step)?, number(call)?))
    }
}

/// Returns a page of a run's model calls and tool calls, in the order in which they began.
pub async fn list(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    run_id: RunId,
    page: PageRequest,
) -> Result<Page<RunStep>, Error> {
    caller.require(Scope::DeploymentsRead)?;
    let caller = caller.clone();
    app.store
        .read("list_steps", move |tx| {
            Box::pin(async move {
                caller.deployment(tx, deployment_id).await?;
                let run = runs::find(tx, deployment_id, run_id).await?;
                let run = run.ok_or_else(|| herm_types::Error::not_found("run", &run_id.to_string()))?;
                let after = page.after.as_deref().and_then(|cursor| cursor.parse().ok());
                let StepCursor(step_no, call_no) = after.unwrap_or(StepCursor(0, 0));
                let rows = journal::of_run(tx, run_id, (step_no, call_no), i64::from(page.limit) + 1).await?;
                let cursor =
                    |row: &TimedStep| StepCursor(row.position.step_no, row.position.call_no).to_string();
                let Page { data: rows, next_cursor } = Page::from_rows(rows, page.limit, cursor);
                let calls = tool_call_ids(tx, &rows).await?;
                let mut connections = connections_of(tx, deployment_id, run_id, &rows).await?;
                let data = rows
                    .into_iter()
                    .map(|row| {
                        let position = (row.position.step_no, row.position.call_no);
                        let connections = connections.remove(&position).unwrap_or_default();
                        step(row, calls.get(&position).cloned(), connections, run.status.is_ended())
                    })
                    .collect::<Result<_, herm_store::Error>>()?;
                Ok(Page { data, next_cursor })
            })
        })
        .await
}

/// Returns the id that the model assigned to each tool call in these rows, keyed by step number and call
/// number. The ids are read from the stored replies of the model.
async fn tool_call_ids(
    tx: &mut Tx,
    rows: &[TimedStep],
) -> Result<HashMap<(i64, i64), String>, herm_store::Error> {
    let mut ids = HashMap::new();
    let mut last_step = None;
    for row in rows.iter().filter(|row| row.kind == StepKind::Tool) {
        let step_no = row.position.step_no;
        if last_step.replace(step_no) == Some(step_no) {
            continue;
        }
        let Some(reply) = journal::model_result(tx, row.position.run_id, step_no).await? else { continue };
        let reply: ModelReply = serde_json::from_str(&reply)?;
        ids.extend(
            (1..)
                .zip(reply.tool_calls())
                .map(|(call_no, call)| ((step_no, call_no), call.tool_call_id.clone())),
        );
    }
    Ok(ids)
}

/// Returns the network connections that each tool call in these rows opened, keyed by step number and call
/// number. The rows must be sorted by these two numbers.
async fn connections_of(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    run_id: RunId,
    rows: &[TimedStep],
) -> Result<BTreeMap<(i64, i64), CallConnections>, herm_store::Error> {
    let position = |row: &TimedStep| (row.position.step_no, row.position.call_no);
    match (rows.first().map(position), rows.last().map(position)) {
        (Some(first), Some(last)) => connections::of_calls(tx, deployment_id, run_id, first, last).await,
        _ => Ok(BTreeMap::new()),
    }
}

fn step(
    row: TimedStep,
    tool_call_id: Option<String>,
    connections: CallConnections,
    run_has_ended: bool,
) -> Result<RunStep, herm_store::Error> {
    let (mut tokens, mut failed) = (None, false);
    match (&row.result, row.kind) {
        (Some(result), StepKind::Model) => tokens = Some(serde_json::from_str::<ModelReply>(result)?.usage),
        (Some(result), StepKind::Tool) => failed = serde_json::from_str::<ToolOutcome>(result)?.is_error,
        (None, _) => {}
    }
    let status = match (row.result.is_some(), failed, run_has_ended) {
        (true, false, _) => StepStatus::Completed,
        (true, true, _) => StepStatus::Error,
        (false, _, true) => StepStatus::Cancelled,
        (false, _, false) => StepStatus::Running,
    };
    let duration_ms =
        row.ended_at.map(|ended_at| (ended_at.as_micros() - row.started_at.as_micros()).max(0) / 1000);
    let is_tool = row.kind == StepKind::Tool;
    Ok(RunStep {
        step: row.position.step_no,
        kind: row.kind,
        name: row.name,
        tool_call_id,
        status,
        started_at: row.started_at,
        ended_at: row.ended_at,
        duration_ms,
        tokens,
        connections: is_tool.then_some(connections.listed),
        connections_total: is_tool.then_some(connections.total),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_round_trips_through_text() {
        assert_eq!("12.3".parse(), Ok(StepCursor(12, 3)));
        assert_eq!(StepCursor(12, 3).to_string(), "12.3");
        for wrong in ["", "12", "a.b", "-1.0", "1.2.3", "99999999999999999999.0"] {
            assert_eq!(wrong.parse::<StepCursor>(), Err(InvalidCursor), "{wrong}");
        }
    }
}
