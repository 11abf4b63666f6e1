//! What a step says aloud, as events: from the harness's [`Speech`] to the log.

use herm_agent::{Said, Speech};
use herm_types::event::{Event, StoredEvent};
use herm_types::thread::Role;
use herm_types::{IdSource, MessageId, RunId, ThreadId};
use serde::Deserialize;

/// The voice of one step.
pub(super) struct Voice {
    run_id: RunId,
    thread_id: ThreadId,
    ids: IdSource,
    speech: Speech,
    message_id: MessageId,
    unsent: Vec<Event>,
}

impl Voice {
    /// The voice of a step that has said nothing, or what `spoken` tells.
    pub(super) fn new(run_id: RunId, thread_id: ThreadId, ids: IdSource, spoken: &[StoredEvent]) -> Self {
        let open = open_message(spoken);
        let message_id = open.as_ref().map_or_else(|| ids.next(), |(id, _)| *id);
        let speech = Speech::resume(open.map(|(_, text)| text).unwrap_or_default());
        Self { run_id, thread_id, ids, speech, message_id, unsent: Vec::new() }
    }

    pub(super) fn hear(&mut self, delta: &str) {
        for said in self.speech.hear(delta) {
            self.say(said);
        }
    }

    /// Ends the speech: the attempt is whole.
    pub(super) fn finish(&mut self) {
        for said in self.speech.finish() {
            self.say(said);
        }
    }

    /// Ends a speech that nothing will finish: what was said of it is closed as truncated.
    pub(super) fn abandon(&mut self) {
        if let Some(said) = self.speech.abandon() {
            self.say(said);
        }
    }

    /// What is to be sent now.
    pub(super) fn take_unsent(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.unsent)
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    fn say(&mut self, said: Said) {
        match said {
            Said::Delta(text) => {
                if let Some(Event::Token { delta, .. }) = self.unsent.last_mut() {
                    delta.push_str(&text);
                } else {
                    let (run_id, thread_id, message_id) = (self.run_id, self.thread_id, self.message_id);
                    self.unsent.push(Event::Token { run_id, thread_id, message_id, delta: text });
                }
            }
            Said::Finished(content) => self.close(content, false),
            Said::Truncated(content) => {
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
struct Spoken {
    message_id: MessageId,
    #[serde(default)]
    delta: String,
}

/// The message that was begun and not closed, and its text so far.
fn open_message(spoken: &[StoredEvent]) -> Option<(MessageId, String)> {
    let mut open: Option<(MessageId, String)> = None;
    for event in spoken {
        let Ok(said) = serde_json::from_str::<Spoken>(&event.data) else { continue };
        let is_open = open.as_ref().is_some_and(|(id, _)| *id == said.message_id);
        match (&*event.event, &mut open) {
            ("token", Some((_, text))) if is_open => text.push_str(&said.delta),
            ("token", _) => open = Some((said.message_id, said.delta)),
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

    fn voice() -> Voice {
        let ids = IdSource::new(Arc::new(SystemClock), Arc::new(SystemRng));
        Voice::new(ids.next(), ids.next(), ids, &[])
    }

    fn said(events: &[Event]) -> Vec<(&str, bool)> {
        let texts = events.iter().filter_map(|event| match event {
            Event::Token { delta, .. } => Some((delta.as_str(), false)),
            Event::Message { content, truncated, .. } => Some((content.as_str(), *truncated)),
            _ => None,
        });
        texts.collect()
    }

    #[test]
    fn what_is_closed_in_the_middle_is_all_that_was_said() {
        let mut voice = voice();
        voice.hear("One ");
        voice.take_unsent();
        voice.hear("two ");
        voice.hear("three");
        voice.abandon();
        assert_eq!(said(&voice.take_unsent()), [("two three", false), ("One two three", true)]);
    }
}
