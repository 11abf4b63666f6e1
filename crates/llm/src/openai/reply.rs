//! Reads the chunks of a Chat Completions stream into one reply.

pub(super) mod wire;

use herm_types::model::{Block, ModelEvent, ModelFaultKind, StopReason, TokenUsage};

use self::wire::{Choice, Chunk, Usage};
use super::tool_calls::ToolCalls;
use crate::Limits;
use crate::draft::{Budget, finish};
use crate::fault::{Complaint, Problem};

/// The data that ends a stream.
const DONE: &str = "[DONE]";

/// The reader of one reply.
#[derive(Debug)]
pub(crate) struct Reader {
    budget: Budget,
    reasoning: String,
    text: String,
    tool_calls: ToolCalls,
    has_refused: bool,
    usage: TokenUsage,
    stop: Option<StopReason>,
}

impl Reader {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            budget: Budget::new(limits),
            reasoning: String::new(),
            text: String::new(),
            tool_calls: ToolCalls::default(),
            has_refused: false,
            usage: TokenUsage::default(),
            stop: None,
        }
    }

    /// Reads the data of one event; gives what there is to tell.
    pub(crate) fn read(&mut self, data: &str) -> Result<Option<ModelEvent>, Problem> {
        if data.trim() == DONE {
            return self.end().map(Some);
        }
        let chunk: Chunk = serde_json::from_str(data)
            .map_err(|error| Problem::malformed(format!("sent a chunk that cannot be read: {error}")))?;
        if let Some(error) = chunk.error {
            return Err(Complaint::from_value(&error).mid_stream());
        }
        if let Some(usage) = chunk.usage {
            self.usage = tokens(&usage);
        }
        // Only one answer is asked for, so there is only the choice 0.
        let choice = chunk.choices.unwrap_or_default().into_iter().find(|choice| choice.index == 0);
        choice.map_or(Ok(None), |choice| self.read_choice(choice))
    }

    /// The stream has ended, with `[DONE]` or without: the reply is whole once it has said why it stopped.
    pub(crate) fn end(&mut self) -> Result<ModelEvent, Problem> {
        let Some(stop) = self.stop.take() else {
            return Err(Problem::new(ModelFaultKind::Network, "ended its stream in the middle of a reply"));
        };
        let mut blocks = Vec::new();
        let reasoning = std::mem::take(&mut self.reasoning);
        if !reasoning.is_empty() {
            blocks.push(Block::Thinking { text: reasoning, signature: None });
        }
        let text = std::mem::take(&mut self.text);
        if !text.is_empty() {
            blocks.push(Block::Text { text });
        }
        blocks.extend(std::mem::take(&mut self.tool_calls).into_blocks()?);
        let stop = if self.has_refused { StopReason::Refusal } else { stop };
        Ok(ModelEvent::Finished(finish(blocks, stop, self.usage)))
    }

    fn read_choice(&mut self, choice: Choice) -> Result<Option<ModelEvent>, Problem> {
        let delta = choice.delta.unwrap_or_default();
        let reasoning = delta.reasoning_content.or(delta.reasoning).unwrap_or_default();
        self.budget.append(&mut self.reasoning, &reasoning)?;
        for call in delta.tool_calls.unwrap_or_default() {
            self.tool_calls.add(call, &mut self.budget)?;
        }
        let mut said = delta.content.unwrap_or_default();
        if let Some(refusal) = delta.refusal.filter(|refusal| !refusal.is_empty()) {
            self.has_refused = true;
            said.push_str(&refusal);
        }
        self.budget.append(&mut self.text, &said)?;
        if let Some(reason) = choice.finish_reason.as_deref().filter(|reason| !reason.is_empty()) {
            self.stop = Some(stop_of(reason)?);
        }
        Ok((!said.is_empty()).then_some(ModelEvent::TextDelta(said)))
    }
}

/// What was read from the cache is part of the prompt's count; here each token is counted once.
fn tokens(usage: &Usage) -> TokenUsage {
    let details = usage.prompt_tokens_details.as_ref();
    let cache_read_tokens = details.and_then(|details| details.cached_tokens).unwrap_or(0);
    let cache_write_tokens = details.and_then(|details| details.cache_write_tokens).unwrap_or(0);
    let prompt_tokens = usage.prompt_tokens.unwrap_or(0);
    TokenUsage {
        input_tokens: prompt_tokens.saturating_sub(cache_read_tokens).saturating_sub(cache_write_tokens),
        output_tokens: usage.completion_tokens.unwrap_or(0),
        cache_read_tokens,
        cache_write_tokens,
    }
}

fn stop_of(reason: &str) -> Result<StopReason, Problem> {
    match reason {
        "tool_calls" | "function_call" => Ok(StopReason::ToolCalls),
        "length" => Ok(StopReason::Length),
        "content_filter" => Ok(StopReason::Refusal),
        // OpenRouter, when the provider behind it has failed.
        "error" => Err(Problem::new(ModelFaultKind::Provider, "broke off its reply with an error")),
        // `stop`, and the words that some servers have for it.
        _ => Ok(StopReason::EndTurn),
    }
}
