//! Enforces the limits on the size of a model reply, and builds the finished reply. Both wire formats use
//! this module.

use herm_types::model::{Block, ModelReply, StopReason, TokenUsage};

use crate::Limits;
use crate::model_error::CallError;

/// Counts the size of a model reply while it arrives, and checks it against the limits.
#[derive(Debug)]
pub(crate) struct ReplySize {
    limits: Limits,
    bytes: usize,
    tool_calls: usize,
    blocks: usize,
}

impl ReplySize {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, bytes: 0, tool_calls: 0, blocks: 0 }
    }

    /// Appends `piece` to `to`, which is a string in the reply, and counts the size of `piece`.
    pub(crate) fn append(&mut self, to: &mut String, piece: &str) -> Result<(), CallError> {
        self.count_text(piece)?;
        to.push_str(piece);
        Ok(())
    }

    /// Counts the size of text that the caller appends itself, without [`Self::append`].
    pub(crate) fn count_text(&mut self, piece: &str) -> Result<(), CallError> {
        self.bytes += piece.len();
        if self.bytes > self.limits.reply_bytes {
            let max_bytes = self.limits.reply_bytes;
            return Err(CallError::malformed(format!("sent a reply larger than {max_bytes} bytes")));
        }
        Ok(())
    }

    /// Counts one block of the reply, of any kind.
    pub(crate) fn count_block(&mut self) -> Result<(), CallError> {
        self.blocks += 1;
        if self.blocks > self.limits.blocks {
            let max = self.limits.blocks;
            return Err(CallError::malformed(format!("sent a reply with more than {max} blocks")));
        }
        Ok(())
    }

    /// Counts one tool call, which is also counted as a block.
    pub(crate) fn count_tool_call(&mut self) -> Result<(), CallError> {
        self.count_block()?;
        self.tool_calls += 1;
        if self.tool_calls > self.limits.tool_calls {
            let max = self.limits.tool_calls;
            return Err(CallError::malformed(format!("sent a reply with more than {max} tool calls")));
        }
        Ok(())
    }
}

/// Builds the finished reply. Servers report different stop reasons for replies with tool calls, so the stop
/// reason is corrected: `EndTurn` with tool calls becomes `ToolCalls`, and `ToolCalls` without tool calls
/// becomes `EndTurn`.
pub(crate) fn finish(blocks: Vec<Block>, stop: StopReason, usage: TokenUsage) -> ModelReply {
    let calls_tools = blocks.iter().any(|block| matches!(block, Block::ToolCall(_)));
    let stop = match stop {
        StopReason::EndTurn | StopReason::ToolCalls if calls_tools => StopReason::ToolCalls,
        StopReason::ToolCalls => StopReason::EndTurn,
        stop => stop,
    };
    ModelReply { blocks, stop, usage }
}
