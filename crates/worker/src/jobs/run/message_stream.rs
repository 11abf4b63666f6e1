//! Converts the text of a model's reply into `token` and `message` events for the event log. [`ReplyDedup`] omits
//! text that an earlier attempt at the same reply has already sent.

use herm_agent::{Output, ReplyDedup};
use herm_types::event::{Event, StoredEvent};
use herm_types::thread::Role;
use herm_types::{IdSource, MessageId, RunId, ThreadId};
use serde::Deserialize;

/// Converts the streamed reply of one step into events for the event log.
pub(super) struct MessageStream {
    run_id: RunId,
    thread_id: ThreadId,
    ids: IdSource,
    dedup: ReplyDedup,
    message_id: MessageId,
    unsent: Vec<Event>,
}

impl MessageStream {
    /// Creates the message stream of one step. `sent_events` are the text events that earlier attempts at the step have
    /// emitted.
    pub(super) fn new(
        run_id: RunId,
        thread_id: ThreadId,
        ids: IdSource,
        sent_events: &[StoredEvent],
    ) -> Self {
        let open = open_message(sent_events);
        let message_id = open.as_ref().map_or_else(|| ids.next(), |(id, _)| *id);
        let dedup = ReplyDedup::resume(open.map(|(_, text)| text).unwrap_or_default());
        Self { run_id, thread_id, ids, dedup, message_id, unsent: Vec::new() }
    }

    pub(super) fn push(&mut self, delta: &str) {
        for output in self.dedup.push(delta) {
            self.queue(output);
        }
    }

    /// Ends the stream after a complete reply: queues the remaining text and closes the message.
    pub(super) fn finish(&mut self) {
        for output in self.dedup.finish() {
            self.queue(output);
        }
    }

    /// Ends the stream after an incomplete reply. A message that is still open is closed and marked as truncated.
    pub(super) fn abandon(&mut self) {
        if let Some(output) = self.dedup.abandon() {
            self.queue(output);
        }
    }

    /// Removes and returns the queued events, which the caller must emit.
    pub(super) fn take_unsent(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.unsent)
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    fn queue(&mut self, output: Output) {
        match output {
            Output::Delta(text) => {
                if let Some(Event::Token { delta, .. }) = self.unsent.last_mut() {
                    delta.push_str(&text);
                } else {
                    let (run_id, thread_id, message_id) = (self.run_id, self.thread_id, self.message_id);
                    self.unsent.push(Event::Token { run_id, thread_id, message_id, delta: text });
                }
            }
            Output::Finished(content) => self.close(content, false),
            Output::Truncated(content) => {
                self.close(content, true);
                self.message_id = self.ids.next();
            }
        }
    }

    fn close(&mut self, content: String, truncated: bool) {
        self.unsent.push(Event::Message {
            run_id: self.run_id,
            thread_id: self.thread_id,
            message_id: self.message_id,
            role: Role::Agent,
            content,
            attachments: Vec::new(),
            truncated,
        });
    }
}

#[derive(Deserialize)]
struct MessageEventData {
    message_id: MessageId,
    #[serde(default)]
    delta: String,
}

/// Returns the id of the message that has `token` events but was not closed, and its text so far. Returns `None` if
/// all messages were closed.
fn open_message(sent_events: &[StoredEvent]) -> Option<(MessageId, String)> {
    let mut open: Option<(MessageId, String)> = None;
    for event in sent_events {
        let Ok(data) = serde_json::from_str::<MessageEventData>(&event.data) else { continue };
        let is_open = open.as_ref().is_some_and(|(id, _)| *id == data.message_id);
        match (&*event.event, &mut open) {
            ("token", Some((_, text))) if is_open => text.push_str(&data.delta),
            ("token", _) => open = Some((data.message_id, data.delta)),
            (_, _) if is_open => open = None,
            _ => {}
        }
    }
    open
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use herm_types::time::{SystemClock, SystemRng};

    use super::*;

    fn stream() -> MessageStream {
        let ids = IdSource::new(Arc::new(SystemClock), Arc::new(SystemRng));
        MessageStream::new(ids.next(), ids.next(), ids, &[])
    }

    fn texts(events: &[Event]) -> Vec<(&str, bool)> {
        let texts = events.iter().filter_map(|event| match event {
            Event::Token { delta, .. } => Some((delta.as_str(), false)),
            Event::Message { content, truncated, .. } => Some((content.as_str(), *truncated)),
            _ => None,
        });
        texts.collect()
    }

    #[test]
    fn abandoning_a_reply_closes_its_message_with_the_text_so_far() {
        let mut stream = stream();
        stream.push("One ");
        stream.take_unsent();
        stream.push("two ");
        stream.push("three");
        stream.abandon();
        assert_eq!(texts(&stream.take_unsent()), [("two three", false), ("One two three", true)]);
    }
}
