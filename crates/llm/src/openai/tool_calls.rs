//! Assembles the tool calls of a stream from their deltas. Servers label these deltas in different ways.
//!
//! OpenAI assigns an index to each call, and sends the id and the name only in the first delta of a call.
//! Other servers omit the index, use the index 0 for every call, repeat the id or the name in each delta,
//! send an empty name, or send no id at all.

use herm_types::model::{Block, ToolCall};

use super::reply::wire::ToolCallDelta;
use crate::model_error::CallError;
use crate::reply_size::ReplySize;

#[derive(Debug, Default)]
struct PartialCall {
    index: Option<u32>,
    id: String,
    name: String,
    arguments: String,
}

/// The tool calls of one reply, in the order in which they started.
#[derive(Debug, Default)]
pub(super) struct ToolCalls {
    calls: Vec<PartialCall>,
}

impl ToolCalls {
    /// Adds a delta to the tool call that it continues, or starts a new tool call with it.
    pub(super) fn add(&mut self, delta: ToolCallDelta, size: &mut ReplySize) -> Result<(), CallError> {
        let id = delta.id.unwrap_or_default();
        let function = delta.function.unwrap_or_default();
        let name = function.name.unwrap_or_default();
        let position = self.position(delta.index, &id, &name);
        let call = match position.and_then(|position| self.calls.get_mut(position)) {
            Some(call) => call,
            None => {
                size.count_tool_call()?;
                self.calls.push_mut(PartialCall { index: delta.index, ..PartialCall::default() })
            }
        };
        if call.id.is_empty() {
            size.append(&mut call.id, &id)?;
        }
        if call.name.is_empty() {
            size.append(&mut call.name, &name)?;
        }
        size.append(&mut call.arguments, &function.arguments.unwrap_or_default())
    }

    /// Finds the tool call to which a delta with this index, id and name belongs. Returns the position of the
    /// call in the list of calls, or `None` if the delta starts a new call.
    fn position(&self, index: Option<u32>, id: &str, name: &str) -> Option<usize> {
        let find = |matches: &dyn Fn(&PartialCall) -> bool| self.calls.iter().rposition(matches);
        // A different id alone does not start a new call. The delta must also have a name, because some
        // servers change the id between the deltas of one call.
        let is_other_call =
            |call: &PartialCall| !name.is_empty() && !id.is_empty() && !call.id.is_empty() && call.id != id;
        if index.is_some() {
            let position = find(&|call| call.index == index)?;
            return self.calls.get(position).filter(|call| !is_other_call(call)).map(|_| position);
        }
        if !id.is_empty()
            && let Some(position) = find(&|call| call.id == id)
        {
            return Some(position);
        }
        let last = self.calls.last()?;
        let begins = !name.is_empty() && !last.name.is_empty();
        (!begins).then(|| self.calls.len() - 1)
    }

    /// Returns the complete tool calls. A call without an id gets the id `call_<position>`, and a call
    /// without arguments gets the arguments `{}`.
    pub(super) fn into_blocks(self) -> Result<Vec<Block>, CallError> {
        let block = |(position, call): (usize, PartialCall)| {
            if call.name.is_empty() {
                return Err(CallError::malformed("sent a tool call without a name"));
            }
            let or_else = |text: String, default: &dyn Fn() -> String| {
                if text.trim().is_empty() { default() } else { text }
            };
            Ok(Block::ToolCall(ToolCall {
                tool_call_id: or_else(call.id, &|| format!("call_{position}")),
                tool: call.name,
                arguments: or_else(call.arguments, &|| "{}".to_owned()),
            }))
        };
        self.calls.into_iter().enumerate().map(block).collect()
    }
}
