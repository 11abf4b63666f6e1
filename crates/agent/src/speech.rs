//! What a model says aloud, so that text once sent stands whatever breaks.
//!
//! A model call that is made again, because its stream or the server broke, is compared with the text that was
//! already sent. It is held back until it is longer, and then only the rest is sent; or until it differs, and
//! then the old message is closed as truncated and the new one is sent whole. Nothing is sent twice.

/// The text of one step, over all attempts at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Speech {
    /// What was sent under the open message.
    sent: String,
    /// What the present attempt has said.
    attempt: String,
}

/// What is to be said next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// More text of the open message.
    Delta(String),
    /// The open message, of this text, is closed as truncated; what follows belongs to a new one.
    Truncated(String),
    /// The open message is finished, and this is all of it.
    Finished(String),
}

impl Speech {
    /// The speech of a step whose open message already has this text in the log.
    pub fn resume(sent: String) -> Self {
        Self { sent, attempt: String::new() }
    }

    /// Begins another attempt at the step.
    pub fn restart(&mut self) {
        self.attempt.clear();
    }

    /// Hears more of the attempt's text; gives what is to be sent now.
    pub fn hear(&mut self, delta: &str) -> Vec<Said> {
        self.attempt.push_str(delta);
        if self.sent.starts_with(&self.attempt) {
            return Vec::new();
        }
        let mut said = Vec::new();
        if !self.attempt.starts_with(&self.sent) {
            said.push(Said::Truncated(std::mem::take(&mut self.sent)));
        }
        let rest = self.attempt.get(self.sent.len()..).unwrap_or_default().to_owned();
        self.sent.push_str(&rest);
        said.push(Said::Delta(rest));
        said
    }

    /// Ends the step's speech: the attempt is whole.
    pub fn finish(&mut self) -> Vec<Said> {
        let mut said = Vec::new();
        if self.sent != self.attempt {
            // The attempt is a shorter text than what was sent: that message stands as it is, cut off.
            said.push(Said::Truncated(std::mem::take(&mut self.sent)));
            if !self.attempt.is_empty() {
                said.push(Said::Delta(self.attempt.clone()));
            }
        }
        if !self.attempt.is_empty() {
            said.push(Said::Finished(std::mem::take(&mut self.attempt)));
        }
        self.sent.clear();
        said
    }

    /// Ends a speech that no attempt will finish: what was sent is closed as truncated.
    pub fn abandon(&mut self) -> Option<Said> {
        self.attempt.clear();
        (!self.sent.is_empty()).then(|| Said::Truncated(std::mem::take(&mut self.sent)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_attempt_that_says_the_same_is_held_back_until_it_says_more() {
        let mut speech = Speech::resume("Hello, wor".to_owned());
        assert_eq!(speech.hear("Hello"), []);
        assert_eq!(speech.hear(", world!"), [Said::Delta("ld!".to_owned())]);
        assert_eq!(speech.finish(), [Said::Finished("Hello, world!".to_owned())]);
    }

    #[test]
    fn an_attempt_that_differs_closes_the_message_and_is_sent_whole() {
        let mut speech = Speech::resume("Hello".to_owned());
        assert_eq!(speech.hear("He"), []);
        let truncated = Said::Truncated("Hello".to_owned());
        assert_eq!(speech.hear("y"), [truncated, Said::Delta("Hey".to_owned())]);
        assert_eq!(speech.finish(), [Said::Finished("Hey".to_owned())]);
    }

    #[test]
    fn an_attempt_that_says_less_is_sent_whole_under_a_new_message() {
        let mut speech = Speech::resume("Hello".to_owned());
        assert_eq!(speech.hear("Hell"), []);
        let expected = ["Hello", "Hell", "Hell"].map(str::to_owned);
        let [truncated, delta, finished] = expected;
        assert_eq!(
            speech.finish(),
            [Said::Truncated(truncated), Said::Delta(delta), Said::Finished(finished)]
        );
    }

    proptest! {
        /// However often an attempt breaks and wherever: each message's deltas concatenate to exactly what it
        /// is closed with, and the last one finished is the last attempt.
        #[test]
        fn deltas_concatenate_to_their_message(attempts in proptest::collection::vec("[abé]{0,6}", 1..5)) {
            let mut speech = Speech::default();
            let (mut open, mut finished) = (String::new(), None);
            let last = attempts.len() - 1;
            for (number, attempt) in attempts.iter().enumerate() {
                speech.restart();
                let mut said: Vec<Said> =
                    attempt.chars().flat_map(|c| speech.hear(c.encode_utf8(&mut [0; 4]))).collect();
                if number == last {
                    said.extend(speech.finish());
                }
                for one in said {
                    match one {
                        Said::Delta(text) => open.push_str(&text),
                        Said::Truncated(text) => prop_assert_eq!(std::mem::take(&mut open), text),
                        Said::Finished(text) => {
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
