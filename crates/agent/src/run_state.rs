//! The state of a run as the journal records it, and the conversation that the model reads.

use std::collections::{BTreeMap, BTreeSet};

use herm_types::model::{ModelReply, ToolOutcome, ToolResult, Turn};

use crate::steering::Settlement;
use crate::tools::Toolset;

/// The input of a decision: the tools of the run, the conversation of earlier runs, the steps of this run,
/// and user messages that no step has read yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunState {
    pub tools: Toolset,
    /// The turns of the thread's earlier runs, oldest first.
    pub earlier: Vec<Turn>,
    /// The steps of the run, in order. Only the last step may be incomplete.
    pub steps: Vec<Step>,
    /// The texts of user messages that no step has read yet, oldest first.
    pub pending: Vec<String>,
}

/// One model call and the tool calls that its reply requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// The number of the step within its run. The first step is 1.
    pub step_no: i64,
    /// The texts of the user messages that the model reads for the first time in this step.
    pub messages: Vec<String>,
    /// The reply of the model, or `None` until it is complete.
    pub reply: Option<ModelReply>,
    /// The results of the reply's tool calls, in order. `None` stands for a tool call without a result.
    pub outcomes: Vec<Option<ToolOutcome>>,
    /// The numbers of the tool calls that have an intent, the journal entry that is written before a call is
    /// made, but no result yet. An earlier attempt may have executed such a call.
    pub begun: BTreeSet<i64>,
    /// The effects of steering requests on this step's tool calls, keyed by call number. Only the last step
    /// has any.
    pub settlements: BTreeMap<i64, Settlement>,
}

/// The text that the model receives as the result of a tool call that was never made, because its run ended
/// first.
const NOT_RUN: &str = "This call was not made because the run ended first.";

/// Returns the conversation of these steps. Providers require a result for every tool call, so a tool call
/// without a result gets the text `NOT_RUN` as its result.
pub fn turns(steps: &[Step]) -> Vec<Turn> {
    let mut turns = Vec::new();
    for step in steps {
        turns.extend(step.messages.iter().map(|text| Turn::User { text: text.clone() }));
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
