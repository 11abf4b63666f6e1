//! Puts together the tool calls of a stream, whose pieces servers label in different ways.
//!
//! OpenAI gives each call an index, and id and name in its first piece only. Others leave the index out, give
//! every call the index 0, repeat id or name in each piece, send an empty name, or no id at all.

use herm_types::model::{Block, ToolCall};

use super::reply::wire::ToolCallDelta;
use crate::draft::Budget;
use crate::fault::Problem;

#[derive(Debug, Default)]
struct Draft {
    index: Option<u32>,
    id: String,
    name: String,
    arguments: String,
}

/// The calls of one reply, in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct ToolCalls {
    drafts: Vec<Draft>,
}

impl ToolCalls {
    /// Adds a piece to the call it belongs to, which may be a new one.
    pub(super) fn add(&mut self, delta: ToolCallDelta, budget: &mut Budget) -> Result<(), Problem> {
        let id = delta.id.unwrap_or_default();
        let function = delta.function.unwrap_or_default();
        let name = function.name.unwrap_or_default();
        let position = self.position(delta.index, &id, &name);
        let draft = match position.and_then(|position| self.drafts.get_mut(position)) {
            Some(draft) => draft,
            None => {
                budget.open_tool_call()?;
                self.drafts.push_mut(Draft { index: delta.index, ..Draft::default() })
            }
        };
        if draft.id.is_empty() {
            budget.append(&mut draft.id, &id)?;
        }
        if draft.name.is_empty() {
            budget.append(&mut draft.name, &name)?;
        }
        budget.append(&mut draft.arguments, &function.arguments.unwrap_or_default())
    }

    /// The call that a piece with these labels goes on; `None` if it begins one.
    fn position(&self, index: Option<u32>, id: &str, name: &str) -> Option<usize> {
        let find = |is_it: &dyn Fn(&Draft) -> bool| self.drafts.iter().rposition(is_it);
        // Only a piece with a name can begin a call: ids alone change between pieces of one call at some servers.
        let is_another =
            |draft: &Draft| !name.is_empty() && !id.is_empty() && !draft.id.is_empty() && draft.id != id;
        if index.is_some() {
            let position = find(&|draft| draft.index == index)?;
            return self.drafts.get(position).filter(|draft| !is_another(draft)).map(|_| position);
        }
        if !id.is_empty()
            && let Some(position) = find(&|draft| draft.id == id)
        {
            return Some(position);
        }
        let last = self.drafts.last()?;
        let begins = !name.is_empty() && !last.name.is_empty();
        (!begins).then(|| self.drafts.len() - 1)
    }

    /// The finished calls. One without an id gets `call_<position>`; one without arguments, `{}`.
    pub(super) fn into_blocks(self) -> Result<Vec<Block>, Problem> {
        let block = |(position, draft): (usize, Draft)| {
            if draft.name.is_empty() {
                return Err(Problem::malformed("sent a tool call without a name"));
            }
            let or_else = |text: String, default: &dyn Fn() -> String| {
                if text.trim().is_empty() { default() } else { text }
            };
            Ok(Block::ToolCall(ToolCall {
                tool_call_id: or_else(draft.id, &|| format!("call_{position}")),
                tool: draft.name,
                arguments: or_else(draft.arguments, &|| "{}".to_owned()),
            }))
        };
        self.drafts.into_iter().enumerate().map(block).collect()
    }
}
