//! Builds a model reply from the streaming events of Anthropic.

mod wire;

use herm_types::model::{Block, ModelErrorKind, ModelEvent, StopReason, TokenUsage, ToolCall};

use self::wire::{ContentBlock, Delta, Event, Usage};
use crate::Limits;
use crate::model_error::{CallError, ProviderError};
use crate::reply_size::{ReplySize, finish};

/// A block of the reply that is not complete yet.
#[derive(Debug)]
enum PartialBlock {
    Text(String),
    Thinking {
        text: String,
        signature: String,
    },
    RedactedThinking(String),
    ToolUse {
        id: String,
        name: String,
        whole_input: String,
        partial_json: String,
    },
    /// A block of an unknown type. It is ignored with all its deltas.
    Unknown,
}

/// Builds one model reply from streaming events.
#[derive(Debug)]
pub(crate) struct ReplyBuilder {
    size: ReplySize,
    /// The blocks of the reply, each with its index in the stream.
    blocks: Vec<(u32, PartialBlock)>,
    usage: TokenUsage,
    stop: Option<StopReason>,
}

impl ReplyBuilder {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { size: ReplySize::new(limits), blocks: Vec::new(), usage: TokenUsage::default(), stop: None }
    }

    /// Processes the JSON data of one streaming event. Returns the resulting model event, if there is one.
    pub(crate) fn push(&mut self, data: &str) -> Result<Option<ModelEvent>, CallError> {
        let event = serde_json::from_str(data)
            .map_err(|error| CallError::malformed(format!("sent an invalid event: {error}")))?;
        match event {
            Event::MessageStart { message } => {
                self.update_usage(message.usage);
                Ok(None)
            }
            Event::ContentBlockStart { index, content_block } => self.start_block(index, content_block),
            Event::ContentBlockDelta { index, delta } => self.push_delta(index, delta),
            Event::MessageDelta { delta, usage } => {
                self.update_usage(usage);
                if let Some(reason) = delta.stop_reason {
                    self.stop = Some(stop_reason(&reason));
                }
                Ok(None)
            }
            Event::MessageStop => self.finish().map(Some),
            Event::Error { error } => Err(ProviderError::from_value(&error).into_stream_error()),
            Event::Unknown => Ok(None),
        }
    }

    /// Returns the error for a stream that ended before the event `message_stop`.
    pub(crate) fn end(&self) -> CallError {
        CallError::new(ModelErrorKind::Network, "ended its stream in the middle of a reply")
    }

    /// Updates the token usage. The counts in each event are cumulative, so they replace the earlier ones.
    fn update_usage(&mut self, usage: Option<Usage>) {
        let Some(usage) = usage else { return };
        let set = |count: &mut u64, new: Option<u64>| *count = new.unwrap_or(*count);
        set(&mut self.usage.input_tokens, usage.input_tokens);
        set(&mut self.usage.output_tokens, usage.output_tokens);
        set(&mut self.usage.cache_write_tokens, usage.cache_creation_input_tokens);
        set(&mut self.usage.cache_read_tokens, usage.cache_read_input_tokens);
    }

    fn start_block(&mut self, index: u32, block: ContentBlock) -> Result<Option<ModelEvent>, CallError> {
        let (block, event) = match block {
            ContentBlock::Text { text } => {
                self.size.count_text(&text)?;
                (PartialBlock::Text(text.clone()), text_delta(text))
            }
            ContentBlock::Thinking { thinking, signature } => {
                self.size.count_text(&thinking)?;
                self.size.count_text(&signature)?;
                (PartialBlock::Thinking { text: thinking, signature }, None)
            }
            ContentBlock::RedactedThinking { data } => {
                self.size.count_text(&data)?;
                (PartialBlock::RedactedThinking(data), None)
            }
            ContentBlock::ToolUse { id, name, input } => {
                self.size.count_tool_call()?;
                self.size.count_text(&id)?;
                self.size.count_text(&name)?;
                if id.is_empty() || name.is_empty() {
                    return Err(CallError::malformed("sent a tool call without an id or a name"));
                }
                let whole_input = if input.is_object() { input.to_string() } else { "{}".to_owned() };
                self.size.count_text(&whole_input)?;
                (PartialBlock::ToolUse { id, name, whole_input, partial_json: String::new() }, None)
            }
            ContentBlock::Unknown => (PartialBlock::Unknown, None),
        };
        if !matches!(block, PartialBlock::ToolUse { .. }) {
            self.size.count_block()?;
        }
        self.blocks.push((index, block));
        Ok(event)
    }

    fn push_delta(&mut self, index: u32, delta: Delta) -> Result<Option<ModelEvent>, CallError> {
        // Search from the end, because a delta nearly always belongs to the last block.
        let block = self.blocks.iter_mut().rev().find(|(block, _)| *block == index).map(|(_, block)| block);
        let Some(block) = block else {
            return Err(CallError::malformed("sent a delta for a block that it had not started"));
        };
        match (block, delta) {
            (PartialBlock::Text(block), Delta::Text { text }) => {
                self.size.append(block, &text)?;
                return Ok(text_delta(text));
            }
            (PartialBlock::Thinking { text, .. }, Delta::Thinking { thinking }) => {
                self.size.append(text, &thinking)?;
            }
            (PartialBlock::Thinking { signature, .. }, Delta::Signature { signature: piece }) => {
                self.size.append(signature, &piece)?;
            }
            (PartialBlock::ToolUse { partial_json, .. }, Delta::InputJson { partial_json: piece }) => {
                self.size.append(partial_json, &piece)?;
            }
            (PartialBlock::Unknown, _) | (_, Delta::Unknown) => {}
            _ => return Err(CallError::malformed("sent a delta that does not fit the type of its block")),
        }
        Ok(None)
    }

    fn finish(&mut self) -> Result<ModelEvent, CallError> {
        let Some(stop) = self.stop else {
            return Err(CallError::malformed("ended its reply without a stop reason"));
        };
        let blocks = std::mem::take(&mut self.blocks);
        let blocks = blocks.into_iter().filter_map(|(_, block)| block.into_block()).collect();
        Ok(ModelEvent::Finished(finish(blocks, stop, self.usage)))
    }
}

impl PartialBlock {
    /// Returns the complete block, or `None` if its text is empty or its type is unknown.
    fn into_block(self) -> Option<Block> {
        match self {
            Self::Text(text) if text.is_empty() => None,
            Self::Text(text) => Some(Block::Text { text }),
            Self::Thinking { text, signature } => {
                let signature = Some(signature).filter(|signature| !signature.is_empty());
                Some(Block::Thinking { text, signature })
            }
            Self::RedactedThinking(data) => Some(Block::RedactedThinking { data }),
            Self::ToolUse { id, name, whole_input, partial_json } => {
                let arguments = if partial_json.is_empty() { whole_input } else { partial_json };
                Some(Block::ToolCall(ToolCall { tool_call_id: id, tool: name, arguments }))
            }
            Self::Unknown => None,
        }
    }
}

fn text_delta(text: String) -> Option<ModelEvent> {
    (!text.is_empty()).then_some(ModelEvent::TextDelta(text))
}

fn stop_reason(reason: &str) -> StopReason {
    match reason {
        "tool_use" => StopReason::ToolCalls,
        "max_tokens" | "model_context_window_exceeded" => StopReason::Length,
        "refusal" => StopReason::Refusal,
        // These are the stop reasons `end_turn` and `stop_sequence`, and unknown ones. `pause_turn` occurs
        // only with tools that Anthropic itself executes, which are not used here.
        _ => StopReason::EndTurn,
    }
}
