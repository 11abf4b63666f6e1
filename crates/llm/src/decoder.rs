//! From the bytes of a stream to model events, without any I/O: the same for every provider and every cut.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use herm_types::model::ModelEvent;

use crate::fault::Problem;
use crate::{Limits, ProviderKind, anthropic, openai, sse};

#[derive(Debug)]
enum Reader {
    Anthropic(anthropic::Reader),
    OpenAiChat(openai::Reader),
}

impl Reader {
    fn read(&mut self, data: &str) -> Result<Option<ModelEvent>, Problem> {
        match self {
            Self::Anthropic(reader) => reader.read(data),
            Self::OpenAiChat(reader) => reader.read(data),
        }
    }
}

/// Decodes one reply.
#[derive(Debug)]
pub(crate) struct Decoder {
    parser: sse::Parser,
    reader: Reader,
    is_finished: bool,
}

impl Decoder {
    pub(crate) fn new(kind: ProviderKind, limits: Limits) -> Self {
        let reader = match kind {
            ProviderKind::Anthropic => Reader::Anthropic(anthropic::Reader::new(limits)),
            ProviderKind::OpenAiChat => Reader::OpenAiChat(openai::Reader::new(limits)),
        };
        Self { parser: sse::Parser::new(limits.event_bytes), reader, is_finished: false }
    }

    /// Decodes a piece of the stream and appends what there is to tell. What comes after the end of the reply is
    /// ignored; after an error the decoder must not be used again.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut VecDeque<ModelEvent>) -> Result<(), Problem> {
        let mut outcome = Ok(());
        let parsed = self.parser.push(bytes, |event| {
            if self.is_finished || outcome.is_err() {
                return;
            }
            match self.reader.read(&event.data) {
                Ok(Some(event)) => {
                    self.is_finished = matches!(event, ModelEvent::Finished(_));
                    out.push_back(event);
                }
                Ok(None) => {}
                Err(problem) => outcome = Err(problem),
            }
        });
        outcome?;
        if self.is_finished { Ok(()) } else { parsed.map_err(Problem::from) }
    }

    /// Whether the whole reply has been told.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// The stream has ended: the rest of what there is to tell, or that the reply is not whole.
    pub(crate) fn end(&mut self) -> Result<ModelEvent, Problem> {
        self.is_finished = true;
        match &mut self.reader {
            Reader::Anthropic(reader) => Err(reader.end()),
            Reader::OpenAiChat(reader) => reader.end(),
        }
    }
}
