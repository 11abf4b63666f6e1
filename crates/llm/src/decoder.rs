//! Decodes the bytes of a provider's response stream into model events. Performs no I/O. The result does not
//! depend on how the bytes are split into chunks.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use herm_types::model::ModelEvent;

use crate::model_error::CallError;
use crate::{Limits, ProviderKind, anthropic, openai, sse};

#[derive(Debug)]
enum ReplyBuilder {
    Anthropic(anthropic::ReplyBuilder),
    OpenAiChat(openai::ReplyBuilder),
}

impl ReplyBuilder {
    fn push(&mut self, data: &str) -> Result<Option<ModelEvent>, CallError> {
        match self {
            Self::Anthropic(builder) => builder.push(data),
            Self::OpenAiChat(builder) => builder.push(data),
        }
    }
}

/// Decodes the stream of one model reply.
#[derive(Debug)]
pub(crate) struct Decoder {
    parser: sse::Parser,
    builder: ReplyBuilder,
    is_finished: bool,
}

impl Decoder {
    pub(crate) fn new(kind: ProviderKind, limits: Limits) -> Self {
        let builder = match kind {
            ProviderKind::Anthropic => ReplyBuilder::Anthropic(anthropic::ReplyBuilder::new(limits)),
            ProviderKind::OpenAiChat => ReplyBuilder::OpenAiChat(openai::ReplyBuilder::new(limits)),
        };
        Self { parser: sse::Parser::new(limits.event_bytes), builder, is_finished: false }
    }

    /// Decodes a chunk of the stream and appends the resulting events to `out`. Data after the end of the
    /// reply is ignored. After an error, the decoder must not be used again.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut VecDeque<ModelEvent>) -> Result<(), CallError> {
        let mut outcome = Ok(());
        let parsed = self.parser.push(bytes, |event| {
            if self.is_finished || outcome.is_err() {
                return;
            }
            match self.builder.push(&event.data) {
                Ok(Some(event)) => {
                    self.is_finished = matches!(event, ModelEvent::Finished(_));
                    out.push_back(event);
                }
                Ok(None) => {}
                Err(error) => outcome = Err(error),
            }
        });
        outcome?;
        if self.is_finished { Ok(()) } else { parsed.map_err(CallError::from) }
    }

    /// Returns true if the whole reply has been decoded.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Handles the end of the stream. Returns the finished reply, or an error if the reply is incomplete.
    pub(crate) fn end(&mut self) -> Result<ModelEvent, CallError> {
        self.is_finished = true;
        match &mut self.builder {
            ReplyBuilder::Anthropic(builder) => Err(builder.end()),
            ReplyBuilder::OpenAiChat(builder) => builder.end(),
        }
    }
}
