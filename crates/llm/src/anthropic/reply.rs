//! Reads the events of Anthropic's stream into one reply.

mod wire;

use herm_types::model::{Block, ModelEvent, ModelFaultKind, StopReason, TokenUsage, ToolCall};

use self::wire::{ContentBlock, Delta, Event, Usage};
use crate::Limits;
use crate::draft::{Budget, finish};
use crate::fault::{Complaint, Problem};

/// A block in the making.
#[derive(Debug)]
enum Draft {
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
    /// A kind of block that is not known; its deltas are skipped too.
    Unknown,
}

/// The reader of one reply.
#[derive(Debug)]
pub(crate) struct Reader {
    budget: Budget,
    /// The blocks with the index that the stream calls them by.
    blocks: Vec<(u32, Draft)>,
    usage: TokenUsage,
    stop: Option<StopReason>,
}

impl Reader {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { budget: Budget::new(limits), blocks: Vec::new(), usage: TokenUsage::default(), stop: None }
    }

    /// Reads the data of one event; gives what there is to tell.
    pub(crate) fn read(&mut self, data: &str) -> Result<Option<ModelEvent>, Problem> {
        let event = serde_json::from_str(data)
            .map_err(|error| Problem::malformed(format!("sent an event that cannot be read: {error}")))?;
        match event {
            Event::MessageStart { message } => {
                self.count(message.usage);
                Ok(None)
            }
            Event::ContentBlockStart { index, content_block } => self.start_block(index, content_block),
            Event::ContentBlockDelta { index, delta } => self.add(index, delta),
            Event::MessageDelta { delta, usage } => {
                self.count(usage);
                if let Some(reason) = delta.stop_reason {
                    self.stop = Some(stop_of(&reason));
                }
                Ok(None)
            }
            Event::MessageStop => self.finish().map(Some),
            Event::Error { error } => Err(Complaint::from_value(&error).mid_stream()),
            Event::Unknown => Ok(None),
        }
    }

    /// The stream has ended without its last event.
    pub(crate) fn end(&self) -> Problem {
        Problem::new(ModelFaultKind::Network, "ended its stream in the middle of a reply")
    }

    /// Counts are totals so far: a later one replaces an earlier one.
    fn count(&mut self, usage: Option<Usage>) {
        let Some(usage) = usage else { return };
        let set = |count: &mut u64, new: Option<u64>| *count = new.unwrap_or(*count);
        set(&mut self.usage.input_tokens, usage.input_tokens);
        set(&mut self.usage.output_tokens, usage.output_tokens);
        set(&mut self.usage.cache_write_tokens, usage.cache_creation_input_tokens);
        set(&mut self.usage.cache_read_tokens, usage.cache_read_input_tokens);
    }

    fn start_block(&mut self, index: u32, block: ContentBlock) -> Result<Option<ModelEvent>, Problem> {
        let (draft, event) = match block {
            ContentBlock::Text { text } => {
                self.budget.spend(&text)?;
                (Draft::Text(text.clone()), delta_of(text))
            }
            ContentBlock::Thinking { thinking, signature } => {
                self.budget.spend(&thinking)?;
                self.budget.spend(&signature)?;
                (Draft::Thinking { text: thinking, signature }, None)
            }
            ContentBlock::RedactedThinking { data } => {
                self.budget.spend(&data)?;
                (Draft::RedactedThinking(data), None)
            }
            ContentBlock::ToolUse { id, name, input } => {
                self.budget.open_tool_call()?;
                self.budget.spend(&id)?;
                self.budget.spend(&name)?;
                if id.is_empty() || name.is_empty() {
                    return Err(Problem::malformed("sent a tool call without id or name"));
                }
                let whole_input = if input.is_object() { input.to_string() } else { "{}".to_owned() };
                self.budget.spend(&whole_input)?;
                (Draft::ToolUse { id, name, whole_input, partial_json: String::new() }, None)
            }
            ContentBlock::Unknown => (Draft::Unknown, None),
        };
        if !matches!(draft, Draft::ToolUse { .. }) {
            self.budget.open_block()?;
        }
        self.blocks.push((index, draft));
        Ok(event)
    }

    fn add(&mut self, index: u32, delta: Delta) -> Result<Option<ModelEvent>, Problem> {
        // The block that is written to is nearly always the last.
        let block = self.blocks.iter_mut().rev().find(|(block, _)| *block == index).map(|(_, block)| block);
        let Some(block) = block else {
            return Err(Problem::malformed("sent a piece of a block that it had not begun"));
        };
        match (block, delta) {
            (Draft::Text(block), Delta::Text { text }) => {
                self.budget.append(block, &text)?;
                return Ok(delta_of(text));
            }
            (Draft::Thinking { text, .. }, Delta::Thinking { thinking }) => {
                self.budget.append(text, &thinking)?;
            }
            (Draft::Thinking { signature, .. }, Delta::Signature { signature: piece }) => {
                self.budget.append(signature, &piece)?;
            }
            (Draft::ToolUse { partial_json, .. }, Delta::InputJson { partial_json: piece }) => {
                self.budget.append(partial_json, &piece)?;
            }
            (Draft::Unknown, _) | (_, Delta::Unknown) => {}
            _ => return Err(Problem::malformed("sent a piece of one kind for a block of another")),
        }
        Ok(None)
    }

    fn finish(&mut self) -> Result<ModelEvent, Problem> {
        let Some(stop) = self.stop else {
            return Err(Problem::malformed("ended its reply without saying why it stopped"));
        };
        let blocks = std::mem::take(&mut self.blocks);
        let blocks = blocks.into_iter().filter_map(|(_, draft)| draft.into_block()).collect();
        Ok(ModelEvent::Finished(finish(blocks, stop, self.usage)))
    }
}

impl Draft {
    /// The finished block; `None` for empty text and for what is not known.
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

fn delta_of(text: String) -> Option<ModelEvent> {
    (!text.is_empty()).then_some(ModelEvent::TextDelta(text))
}

fn stop_of(reason: &str) -> StopReason {
    match reason {
        "tool_use" => StopReason::ToolCalls,
        "max_tokens" | "model_context_window_exceeded" => StopReason::Length,
        "refusal" => StopReason::Refusal,
        // `end_turn` and `stop_sequence`; `pause_turn` comes only from tools that Anthropic runs, which are never
        // offered; a reason of tomorrow still ends the reply.
        _ => StopReason::EndTurn,
    }
}
