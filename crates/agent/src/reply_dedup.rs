//! Deduplicates the text of repeated model calls, so that no text is published twice.
//!
//! A model call is repeated if its stream broke off or the server crashed. The new text is then compared with
//! the text that was already published. As long as the two match, nothing is published. If the new text is
//! longer, only the additional text is published. If the texts differ, the old message is closed as truncated
//! and the whole new text is published as a new message.

/// Tracks the text of one step across all attempts of its model call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyDedup {
    /// The text already published for the open message, that is, for the message to which more text can still
    /// be appended.
    published: String,
    /// The text that the current attempt has received so far.
    attempt: String,
}

/// An event to publish for the open message of the step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// This text is appended to the open message.
    Delta(String),
    /// The open message is closed as truncated, with this whole text. Later output belongs to a new message.
    Truncated(String),
    /// The open message is complete, with this whole text.
    Finished(String),
}

impl ReplyDedup {
    /// Creates the state of a step whose open message already has the text `published` in the event log.
    pub fn resume(published: String) -> Self {
        Self { published, attempt: String::new() }
    }

    /// Adds text that the current attempt has received. Returns the output to publish now.
    pub fn push(&mut self, delta: &str) -> Vec<Output> {
        self.attempt.push_str(delta);
        if self.published.starts_with(&self.attempt) {
            return Vec::new();
        }
        let mut output = Vec::new();
        if !self.attempt.starts_with(&self.published) {
            output.push(Output::Truncated(std::mem::take(&mut self.published)));
        }
        let rest = self.attempt.get(self.published.len()..).unwrap_or_default().to_owned();
        self.published.push_str(&rest);
        output.push(Output::Delta(rest));
        output
    }

    /// Ends the step after the current attempt has received its complete text. Returns the output that
    /// remains to be published.
    pub fn finish(&mut self) -> Vec<Output> {
        let mut output = Vec::new();
        if self.published != self.attempt {
            // The complete text is shorter than the published text. The published message cannot be
            // shortened, so it is closed as truncated and a new message follows.
            output.push(Output::Truncated(std::mem::take(&mut self.published)));
            if !self.attempt.is_empty() {
                output.push(Output::Delta(self.attempt.clone()));
            }
        }
        if !self.attempt.is_empty() {
            output.push(Output::Finished(std::mem::take(&mut self.attempt)));
        }
        self.published.clear();
        output
    }

    /// Ends the step without a complete reply. If a message is open, returns the output that closes it as
    /// truncated.
    pub fn abandon(&mut self) -> Option<Output> {
        self.attempt.clear();
        (!self.published.is_empty()).then(|| Output::Truncated(std::mem::take(&mut self.published)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_equal_attempt_publishes_only_text_beyond_the_old_one() {
        let mut dedup = ReplyDedup::resume("Hello, wor".to_owned());
        assert_eq!(dedup.push("Hello"), []);
        assert_eq!(dedup.push(", world!"), [Output::Delta("ld!".to_owned())]);
        assert_eq!(dedup.finish(), [Output::Finished("Hello, world!".to_owned())]);
    }

    #[test]
    fn a_different_attempt_truncates_the_message_and_is_published_whole() {
        let mut dedup = ReplyDedup::resume("Hello".to_owned());
        assert_eq!(dedup.push("He"), []);
        let truncated = Output::Truncated("Hello".to_owned());
        assert_eq!(dedup.push("y"), [truncated, Output::Delta("Hey".to_owned())]);
        assert_eq!(dedup.finish(), [Output::Finished("Hey".to_owned())]);
    }

    #[test]
    fn a_shorter_attempt_is_published_as_a_new_message() {
        let mut dedup = ReplyDedup::resume("Hello".to_owned());
        assert_eq!(dedup.push("Hell"), []);
        let expected = ["Hello", "Hell", "Hell"].map(str::to_owned);
        let [truncated, delta, finished] = expected;
        assert_eq!(
            dedup.finish(),
            [Output::Truncated(truncated), Output::Delta(delta), Output::Finished(finished)]
        );
    }

    proptest! {
        /// For each message, the concatenated deltas equal the text with which the message is closed. The
        /// text of the last finished message is the text of the last attempt.
        #[test]
        fn deltas_concatenate_to_their_message(attempts in proptest::collection::vec("[abé]{0,6}", 1..5)) {
            let (mut open, mut finished) = (String::new(), None);
            let last = attempts.len() - 1;
            for (number, attempt) in attempts.iter().enumerate() {
                let mut dedup = ReplyDedup::resume(open.clone());
                let mut output: Vec<Output> =
                    attempt.chars().flat_map(|c| dedup.push(c.encode_utf8(&mut [0; 4]))).collect();
                if number == last {
                    output.extend(dedup.finish());
                }
                for event in output {
                    match event {
                        Output::Delta(text) => open.push_str(&text),
                        Output::Truncated(text) => prop_assert_eq!(std::mem::take(&mut open), text),
                        Output::Finished(text) => {
                            prop_assert_eq!(std::mem::take(&mut open), text.clone());
                            finished = Some(text);
                        }
                    }
                }
            }
            prop_assert_eq!(open, "");
            prop_assert_eq!(finished.unwrap_or_default(), attempts[last].clone());
        }
    }
}
