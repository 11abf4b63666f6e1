//! A run as the journal tells it, and the conversation that a model reads from it.

use std::collections::BTreeMap;

use herm_types::model::{ModelReply, ToolOutcome, ToolResult, Turn};

use crate::steering::Settlement;

/// What is known of a run: the conversation before it and its own steps so far.
#[derive(Clone, Debug, Default)]
pub struct RunState {
    /// The turns of the thread's earlier runs, oldest first.
    pub earlier: Vec<Turn>,
    /// The run's steps, in order; only the last may be unfinished.
    pub steps: Vec<Step>,
    /// Messages that no step has read yet, oldest first.
    pub pending: Vec<String>,
}

/// One model call and the tool calls it asked for.
#[derive(Clone, Debug, Default)]
pub struct Step {
    pub step_no: i64,
    /// The user's messages that this step was the first to read.
    pub heard: Vec<String>,
    /// `None` while the model has not answered.
    pub reply: Option<ModelReply>,
    /// One for each tool call of the reply, in its order; `None` where there is no result yet.
    pub outcomes: Vec<Option<ToolOutcome>>,
    /// What became of the calls that a person was asked about, by their numbers; told of the last step alone.
    pub asked: BTreeMap<i64, Settlement>,
}

/// Told to a model about a tool call whose run ended before it was made.
const NOT_RUN: &str = "This call was not made: the run ended before it.";

/// The conversation of these steps. Every tool call has a result, as providers ask for; one that is missing is
/// said to be.
pub fn turns(steps: &[Step]) -> Vec<Turn> {
    let mut turns = Vec::new();
    for step in steps {
        turns.extend(step.heard.iter().map(|text| Turn::User { text: text.clone() }));
        let Some(reply) = step.reply.as_ref().filter(|reply| !reply.blocks.is_empty()) else { continue };
        turns.push(Turn::Assistant { blocks: reply.blocks.clone() });
        let outcomes = step.outcomes.iter().map(Option::as_ref).chain(std::iter::repeat(None));
        let results: Vec<ToolResult> = reply
            .tool_calls()
            .zip(outcomes)
            .map(|(call, outcome)| ToolResult {
                tool_call_id: call.tool_call_id.clone(),
                text: outcome.map_or_else(|| NOT_RUN.to_owned(), |outcome| outcome.text.clone()),
                is_error: outcome.is_none_or(|outcome| outcome.is_error),
            })
            .collect();
        if !results.is_empty() {
            turns.push(Turn::ToolResults { results });
        }
    }
    turns
}
