//! Builds a model reply from the chunks of a Chat Completions stream.

pub(super) mod wire;

use herm_types::model::{Block, ModelErrorKind, ModelEvent, StopReason, TokenUsage};

use self::wire::{Choice, Chunk, Usage};
use super::tool_calls::ToolCalls;
use crate::Limits;
use crate::model_error::{CallError, ProviderError};
use crate::reply_size::{ReplySize, finish};

/// The data of the last event of a stream.
const DONE: &str = "[DONE]";

/// Builds one model reply from chunks.
#[derive(Debug)]
pub(crate) struct ReplyBuilder {
    size: ReplySize,
    reasoning: String,
    text: String,
    tool_calls: ToolCalls,
    has_refused: bool,
    usage: TokenUsage,
    stop: Option<StopReason>,
}

impl ReplyBuilder {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            size: ReplySize::new(limits),
            reasoning: String::new(),
            text: String::new(),
            tool_calls: ToolCalls::default(),
            has_refused: false,
            usage: TokenUsage::default(),
            stop: None,
        }
    }

    /// Processes the data of one event: a chunk or `[DONE]`. Returns the resulting model event, if there is
    /// one.
    pub(crate) fn push(&mut self, data: &str) -> Result<Option<ModelEvent>, CallError> {
        if data.trim() == DONE {
            return self.end().map(Some);
        }
        let chunk: Chunk = serde_json::from_str(data)
            .map_err(|error| CallError::malformed(format!("sent an invalid chunk: {error}")))?;
        if let Some(error) = chunk.error {
            return Err(ProviderError::from_value(&error).into_stream_error());
        }
        if let Some(usage) = chunk.usage {
            self.usage = tokens(&usage);
        }
        // The request asks for one completion, whose index is 0.
        let choice = chunk.choices.unwrap_or_default().into_iter().find(|choice| choice.index == 0);
        choice.map_or(Ok(None), |choice| self.push_choice(choice))
    }

    /// Handles the end of the stream, which need not contain `[DONE]`. The reply is complete if a finish
    /// reason was received.
    pub(crate) fn end(&mut self) -> Result<ModelEvent, CallError> {
        let Some(stop) = self.stop.take() else {
            return Err(CallError::new(ModelErrorKind::Network, "ended its stream in the middle of a reply"));
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

    fn push_choice(&mut self, choice: Choice) -> Result<Option<ModelEvent>, CallError> {
        let delta = choice.delta.unwrap_or_default();
        let reasoning = delta.reasoning_content.or(delta.reasoning).unwrap_or_default();
        self.size.append(&mut self.reasoning, &reasoning)?;
        for call in delta.tool_calls.unwrap_or_default() {
            self.tool_calls.add(call, &mut self.size)?;
        }
        let mut content = delta.content.unwrap_or_default();
        if let Some(refusal) = delta.refusal.filter(|refusal| !refusal.is_empty()) {
            self.has_refused = true;
            content.push_str(&refusal);
        }
        self.size.append(&mut self.text, &content)?;
        if let Some(reason) = choice.finish_reason.as_deref().filter(|reason| !reason.is_empty()) {
            self.stop = Some(stop_reason(reason)?);
        }
        Ok((!content.is_empty()).then_some(ModelEvent::TextDelta(content)))
    }
}

/// Converts the token usage. The provider's `prompt_tokens` includes cached tokens. They are subtracted, so
/// that no token is counted twice.
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

fn stop_reason(reason: &str) -> Result<StopReason, CallError> {
    match reason {
        "tool_calls" | "function_call" => Ok(StopReason::ToolCalls),
        "length" => Ok(StopReason::Length),
        "content_filter" => Ok(StopReason::Refusal),
        // OpenRouter sends the finish reason `error` if the provider that it called has failed.
        "error" => Err(CallError::new(ModelErrorKind::Provider, "aborted its reply with an error")),
        // The finish reason `stop`, and other reasons that only some servers send.
        _ => Ok(StopReason::EndTurn),
    }
}
