//! A reply in the making: what both wire formats gather into, within the limits of a reply.

use herm_types::model::{Block, ModelReply, StopReason, TokenUsage};

use crate::Limits;
use crate::fault::Problem;

/// Counts what a reply holds against its limits.
#[derive(Debug)]
pub(crate) struct Budget {
    limits: Limits,
    bytes: usize,
    tool_calls: usize,
    blocks: usize,
}

impl Budget {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, bytes: 0, tool_calls: 0, blocks: 0 }
    }

    /// Appends to a part of the reply.
    pub(crate) fn append(&mut self, to: &mut String, piece: &str) -> Result<(), Problem> {
        self.spend(piece)?;
        to.push_str(piece);
        Ok(())
    }

    /// Counts a part of the reply that is kept whole.
    pub(crate) fn spend(&mut self, piece: &str) -> Result<(), Problem> {
        self.bytes += piece.len();
        if self.bytes > self.limits.reply_bytes {
            let max_bytes = self.limits.reply_bytes;
            return Err(Problem::malformed(format!("sent a reply larger than {max_bytes} bytes")));
        }
        Ok(())
    }

    /// Counts one more block of any kind.
    pub(crate) fn open_block(&mut self) -> Result<(), Problem> {
        self.blocks += 1;
        if self.blocks > self.limits.blocks {
            let max = self.limits.blocks;
            return Err(Problem::malformed(format!("sent a reply of more than {max} blocks")));
        }
        Ok(())
    }

    /// Counts one more tool call.
    pub(crate) fn open_tool_call(&mut self) -> Result<(), Problem> {
        self.open_block()?;
        self.tool_calls += 1;
        if self.tool_calls > self.limits.tool_calls {
            let max = self.limits.tool_calls;
            return Err(Problem::malformed(format!("sent a reply of more than {max} tool calls")));
        }
        Ok(())
    }
}

/// The finished reply. Whether it calls tools is read off its blocks, as servers disagree on the stop reason then:
/// `EndTurn` with calls becomes `ToolCalls`, and `ToolCalls` without any becomes `EndTurn`.
pub(crate) fn finish(blocks: Vec<Block>, stop: StopReason, usage: TokenUsage) -> ModelReply {
    let calls_tools = blocks.iter().any(|block| matches!(block, Block::ToolCall(_)));
    let stop = match stop {
        StopReason::EndTurn | StopReason::ToolCalls if calls_tools => StopReason::ToolCalls,
        StopReason::ToolCalls => StopReason::EndTurn,
        stop => stop,
    };
    ModelReply { blocks, stop, usage }
}
